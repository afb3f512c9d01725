"""Who looks on while a network trains, and that nobody is listened to."""

import json
import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2
from tiny import tiny_config, write_clip

from imas_jax import protocol
from imas_jax.errors import UserError
from imas_jax.runs.run import Run
from imas_jax.stages import checks, watch
from imas_jax.training import sinks


def events(folder):
    """Read event files: every scalar by (name, step), and names of pictures."""
    scalars, pictures = {}, set()
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                if value.HasField("image"):
                    pictures.add((value.tag, event.step))
                else:
                    scalars[value.tag, event.step] = value.simple_value
    return scalars, pictures


def test_events_hold_curves_and_pictures(tmp_path):
    board = sinks.TensorBoard(tmp_path, 0)
    board.scalars(3, {"loss": 0.5, "learning_rate": 1e-4})
    board.pictures(3, {"frames/bear": np.zeros((6, 8, 3), np.uint8)})
    board.close()
    scalars, pictures = events(tmp_path)
    assert scalars["loss", 3] == 0.5
    assert scalars["learning_rate", 3] == pytest.approx(1e-4)
    assert pictures == {("frames/bear", 3)}


def test_lines_beyond_the_step_a_run_continues_from_are_dropped(tmp_path):
    path = tmp_path / "watched.jsonl"
    first = sinks.JsonLines(path, 0)
    for step in (2, 4):
        first.scalars(step, {"J": 0.1 * step})
    path.write_text(path.read_text() + '{"step": 5, "J"')  # killed while writing
    sinks.JsonLines(path, 2).scalars(3, {"J": 0.9})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3]


@pytest.mark.parametrize(
    ("library", "kind"),
    [("wandb", sinks.WeightsAndBiases), ("trackio", sinks.Trackio)],
)
def test_trackers_get_the_same_names(library, kind, tmp_path, monkeypatch):
    told = []
    run = types.SimpleNamespace(
        log=lambda values, step: told.append((step, values)), finish=lambda: None
    )
    fake = types.SimpleNamespace(
        init=lambda project, **how: told.append({"project": project, **how}) or run,
        Image=lambda p: p.shape,
    )
    monkeypatch.setitem(sys.modules, library, fake)
    folder = tmp_path / "runs/bear/discover"
    folder.mkdir(parents=True)
    sink = kind("imas", folder)
    sink.scalars(3, {"loss": 0.5})
    sink.pictures(4, {"frames/bear": np.zeros((6, 8, 3), np.uint8)})
    sink.close()
    how, *rest = told
    assert (how["project"], how["resume"]) == ("imas", "allow")
    assert how["name"].startswith("runs-bear-discover")
    assert rest == [(3, {"loss": 0.5}), (4, {"frames/bear": (6, 8, 3)})]


def test_trackio_knows_a_run_that_goes_on_and_two_that_are_called_alike(
    tmp_path, monkeypatch
):
    names = []
    fake = types.SimpleNamespace(init=lambda _, **how: names.append(how["name"]))
    monkeypatch.setitem(sys.modules, "trackio", fake)
    for place in ("a", "b", "a"):
        folder = tmp_path / place / "runs/bear/discover"
        folder.mkdir(parents=True, exist_ok=True)
        sinks.Trackio("imas", folder)
    assert names[0] == names[2] != names[1]


def test_rows_of_an_ablation_are_runs_of_their_own_and_go_on_as_such(
    tmp_path, monkeypatch
):
    ids = []
    fake = types.SimpleNamespace(init=lambda **how: ids.append(how["id"]))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for row in ("stage-1", "residual", "stage-1"):
        folder = tmp_path / "rows" / row / "seed-0" / "discover"
        folder.mkdir(parents=True, exist_ok=True)
        sinks.WeightsAndBiases("imas", folder)
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize("library", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_told_before_any_work(
    library, tmp_path, monkeypatch
):
    config = tiny_config(tmp_path, tmp_path / "run")
    config.watch[library] = "imas"
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"imas_jax\[{library}\]"):
        checks.check(config.lock(), "discover")


def write_davis(root):
    """Write a clip with annotations."""
    masks = write_clip(root / "JPEGImages/48p/square")
    folder = root / "Annotations/48p/square"
    folder.mkdir(parents=True)
    for t, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{t:05d}.png")


@pytest.mark.slow
def test_what_is_watched_is_logged_and_changes_no_bit(tmp_path, monkeypatch):
    write_davis(tmp_path / "data")
    identities = []
    for watched in (True, False):
        config = tiny_config(tmp_path / "data", tmp_path / f"watched {watched}")
        config.data.layout, config.data.split = "davis", ""
        config.watch.update(
            {"images_every": 4, "jaccard_every": 3}
            if watched
            else {"images_every": 0, "tensorboard": False}
        )
        run = Run(config.lock(), protocol.STAGES)
        run.make("refine" if watched else "discover")
        identities.append(run.result("discover")["identity"])
    assert identities[0] == identities[1]
    plain = tmp_path / "watched False/discover"
    assert not (plain / "events").exists()
    assert not (plain / "watched.jsonl").exists()
    folder = tmp_path / "watched True"
    scalars, pictures = events(folder / "discover/events")
    log = [
        json.loads(line)
        for line in (folder / "discover/metrics.jsonl").read_text().splitlines()
    ]
    assert [record["step"] for record in log] == [1, 2, 3, 4, 5, 6]
    assert scalars["loss", 6] == pytest.approx(log[5]["loss"])
    assert scalars["learning_rate", 6] == pytest.approx(log[5]["learning_rate"])
    assert log[0]["learning_rate"] == pytest.approx(2e-3)
    assert pictures == {("frames/square", 4)}
    name = f"{watch.WATCHED}/J_oracle_channel"
    assert [step for tag, step in scalars if tag == name] == [3, 6]
    assert 0 < scalars[name, 3] <= 1
    (line,) = (folder / "refine/watched.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {"step", f"{watch.WATCHED}/J"}
