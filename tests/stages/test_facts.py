"""Which fields and contents decide which stage: no more than change its result."""

import shutil

import numpy as np
import pytest
from tiny import tiny_config, write_clip

from imas_jax import files, protocol
from imas_jax.errors import UserError
from imas_jax.flow import estimators
from imas_jax.models import fetching
from imas_jax.runs.records import differences
from imas_jax.runs.run import Run

NAMES = [stage.name for stage in protocol.STAGES]


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("a", "b")):
        write_clip(tmp_path / "data" / name, frames=4, seed=seed)
    return tmp_path


def told(root, data="data", **fields):
    """Return what decides each stage."""
    config = tiny_config(root / data, root / "run")
    config.update_from_flattened_dict(fields)
    run = Run(config.lock(), protocol.STAGES)
    return {stage.name: run.subset(stage) for stage in protocol.STAGES}


def changed(before, after):
    return [name for name in NAMES if differences(before[name], after[name])]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.source", "tfrecord"),
        ("data.partial", True),
        ("data.split", "val"),  # this layout has no splits
        ("data.sequences", ("a", "b")),
        ("flow.export", "flo"),
        ("flow.root", "elsewhere"),
        ("flow.weights", "not-of-dis.pth"),
        ("flow.iterations", 3),
        ("align.features", "palette"),  # motion judges
        ("align.threshold", 0.3),
        ("align.weights", "unused.pth"),
        ("discover.checkpoint_every", 3),
        ("target.workers", 2),
        ("predict.batch_size", 2),
        ("watch.images_every", 3),
        ("evaluate.masks", "folder"),
        ("workdir", "other"),
        ("overwrite", True),
    ],
)
def test_a_field_that_changes_no_bit_decides_nothing(root, field, value):
    assert changed(told(root), told(root, **{field: value})) == []


@pytest.mark.parametrize(
    ("field", "value", "first"),
    [
        ("data.size", (32, 48), "flow"),
        ("data.sequences", ("a",), "flow"),
        ("flow.gaps", (2,), "flow"),
        ("flow.size", 32, "flow"),
        ("flow.background", "none", "discover"),
        ("seed", 1, "discover"),
        ("augment.flip", 0.0, "discover"),
        ("align.judged", "first", "align"),
        ("align.score", "semantic", "align"),
        ("target.dilation", 5, "refine"),
        ("refine.steps", 3, "refine"),
        ("predict.binarize", "threshold", "predict"),
        ("evaluate.oracle", False, "evaluate"),
        ("report.sequences", 1, "report"),
    ],
)
def test_a_field_that_changes_a_result_decides_it_and_what_follows(
    root, field, value, first
):
    found = changed(told(root), told(root, **{field: value}))
    assert found == NAMES[NAMES.index(first) :]


def test_a_data_set_is_known_wherever_it_lies_and_by_what_is_in_it(root):
    before = told(root)
    shutil.move(root / "data", root / "moved")
    assert changed(before, told(root, "moved")) == []
    frame = root / "moved/a/00000.png"
    frame.write_bytes((root / "moved/b/00000.png").read_bytes())
    after = told(root, "moved")
    assert changed(before, after) == NAMES
    (was, now) = differences(before["prepare"], after["prepare"])
    assert was.startswith("clips trained on: was a, 4 frames of 64x48 (")
    assert now.startswith("clips trained on: is a, 4 frames of 64x48 (")


def test_weights_are_known_by_what_is_in_them(root):
    for name, value in (("one", 0), ("two", 0), ("three", 1)):
        np.save(root / name, np.full(9, value))

    def with_weights(name):
        return told(root, **{"model.weights": str(root / f"{name}.npy")})

    assert changed(with_weights("one"), with_weights("two")) == []
    found = changed(with_weights("one"), with_weights("three"))
    assert found == NAMES[NAMES.index("discover") :]


def test_a_name_is_the_same_weights_as_the_path_of_its_file(root, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    for field in ("model.weights", "align.weights", "flow.weights"):
        name = "raft_small" if field == "flow.weights" else "dino_resnet50"
        kept = fetching.place(name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(field.encode())
        (root / "own.pth").write_bytes(field.encode())
        fields = {"align.score": "semantic", "align.features": "weights"}
        if field == "flow.weights":
            fields = {"flow.estimator": "raft"}
        elif field == "model.weights":
            fields = {}
        # As after its first use: a hash is noted, the file is what it was.
        note = f"{files.digest(kept)}  {kept.name}\n"
        kept.with_name(f"{kept.name}.sha256").write_text(note)
        by_name = told(root, **fields, **{field: name})
        assert changed(by_name, told(root, **fields, **{field: str(kept)})) == []
        own = str(root / "own.pth")
        assert changed(by_name, told(root, **fields, **{field: own})) == []
        (root / "own.pth").write_bytes(b"another")
        assert changed(by_name, told(root, **fields, **{field: own}))


def test_a_name_that_is_not_fetched_yet_is_not_fetched_to_be_told(root, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    before = told(root, **{"model.weights": "dino_resnet50"})
    assert before["discover"]["model.weights"] is None
    assert not (root / "imas_jax").exists()


def test_imported_flow_is_known_wherever_it_lies(root):
    config = tiny_config(root / "data", root / "run")
    config.flow.estimator = "import"
    names = []
    for folder in ("flows", "moved flows"):
        (root / folder / "forward").mkdir(parents=True)
        (root / folder / "forward/00000.flo").write_bytes(b"12345")
        config.flow.source = str(root / folder)
        names.append(estimators.digest(config.flow))
    (root / "flows/forward/00001.flo").write_bytes(b"12345")
    config.flow.source = str(root / "flows")
    assert names[0] == names[1] != estimators.digest(config.flow)


def test_another_opencv_makes_no_flow_stale(root, monkeypatch):
    before = told(root)
    monkeypatch.setattr(estimators.cv2, "__version__", "99.0")
    assert changed(before, told(root)) == []


def test_flow_of_other_settings_lies_beside_the_old(root):
    config = tiny_config(root / "data", root / "run")
    Run(config.copy_and_resolve_references().lock(), protocol.STAGES).make("flow")
    old = {p: p.read_bytes() for p in (root / "run/flow").rglob("*.npz")}
    config.flow.size = 32
    with pytest.raises(UserError, match="flow: was 'dis-medium-size0'"):
        Run(config.lock(), protocol.STAGES).make("flow")
    with config.unlocked():
        config.overwrite = True
    Run(config, protocol.STAGES).make("flow")
    assert {path: path.read_bytes() for path in old} == old
    assert len(list((root / "run/flow").rglob("*.npz"))) == 2 * len(old)


def test_an_export_that_is_asked_for_later_is_made_without_new_flow(root):
    config = tiny_config(root / "data", root / "run")
    Run(config.copy_and_resolve_references().lock(), protocol.STAGES).make("prepare")
    config.flow.export = "flo"
    run = Run(config.lock(), protocol.STAGES)
    run.make("prepare")
    assert run.values("flow")["computed"] == 0
    assert len(list((root / "run/flow/export").rglob("*.flo"))) == 2 * 2 * 3
