"""One HTML file, overlay pictures and a video per clip: what a run looks like.

Everything shown was computed by earlier stages; here it is only drawn.
"""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import logging

from imas_jax import curves, movie, predict, report, target_files, visualize
from imas_jax.data import annotations, images
from imas_jax.data.clips import Clip
from imas_jax.evaluation import tables
from imas_jax.evaluation.metrics import jaccard
from imas_jax.stages import evaluate, flow, inputs, masks, motion_masks
from imas_jax.stages.predict import MASKS, SOFT
from imas_jax.stages.refine import TARGETS
from imas_jax.stages.run import Output, Run, flatten, versions

HTML, OVERLAYS, VIDEOS = "report.html", "overlays", "videos"
SHEET = 5  # frames of a clip's contact sheet
OVERVIEW, OVERVIEW_WIDTH = 6, 1280  # clips on the overview, its width in pixels
PX = "px"


def work(run: Run) -> Output:
    """Draw the report, a contact sheet and an overlay video of every clip."""
    folder = run.workdir / "report"
    scored = {one.clip.name: one for one in evaluate.annotated_clips(run.config)}
    clips = inputs.clips(run.config)
    for clip in clips:
        _write_pictures(run, folder, clip)
    _write_overview(folder, clips[:OVERVIEW])
    page = report.Report(
        title=f"IMAS: {Path(run.config.workdir).name}",
        subtitle=f"{len(clips)} clips, {sum(len(c.frames) for c in clips)} frames",
        command=shlex.join(["python", "-m", "imas_jax.main", *sys.argv[1:]]),
        entries=evaluate.read_entries(run),
        empty=evaluate.empty_rule(run.config),
        panels=tuple(_panels(run)),
        alignment=_alignment(run),
        targets=_targets(run),
        sequences=tuple(
            _view(run, clip, scored.get(clip.name))
            for clip in clips[: run.config.report.sequences]
        ),
        warnings=tuple(_warnings(run)),
        seconds={name: run.result(name)["seconds"] for name in _made(run)},
        config="\n".join(f"{k} = {v!r}" for k, v in flatten(run.config).items()),
        versions=versions(),
    )
    path = folder / HTML
    report.write(path, page)
    for table in _headlines(page):
        logging.info("\n%s", table.text())
    logging.info("report: %s", path)
    logging.info("overlays: %s, videos: %s", folder / OVERLAYS, folder / VIDEOS)
    logging.info("at a glance: %s", folder / "overview.jpg")
    logging.info("masks: %s", run.workdir / "predict" / MASKS)
    return Output(
        "drawn",
        {"report": str(path), "overlays": str(folder / OVERLAYS)},
    )


def _headlines(page: report.Report) -> Iterator[tables.Table]:
    """Yield the tables a run ends with."""
    if page.entries:
        yield tables.per_sequence(page.entries, "frame_mean", page.empty)
        yield tables.headline(page.entries, page.empty)


def _made(run: Run) -> list[str]:
    """Return the stages that have a result, in order."""
    return [n for n in run.stages if (run.folder(n) / "result.json").is_file()]


def _write_pictures(run: Run, folder: Path, clip: Clip) -> None:
    """Write a clip's contact sheet and its overlay video."""
    sheet = folder / OVERLAYS / f"{clip.name}.jpg"
    video = folder / VIDEOS / f"{clip.name}.mp4"
    if sheet.is_file() and video.is_file():
        return
    count = len(clip.frames)
    chosen = set(np.linspace(0, count - 1, min(SHEET, count)).round().astype(int))
    kept = []

    def pictures() -> Iterator[np.ndarray]:
        for t in range(count):
            picture = visualize.overlay(clip.read(t), _result(run, clip, t))
            if t in chosen:
                kept.append(picture)
            yield picture

    movie.write_video(video, pictures(), clip.rate)
    visualize.write_image(sheet, visualize.contact_sheet(kept, columns=len(kept)))


def _write_overview(folder: Path, clips: Sequence[Clip]) -> None:
    """Put the first clips' sheets on one picture: the run at a glance."""
    sheets = [images.read_image(folder / OVERLAYS / f"{c.name}.jpg") for c in clips]
    rows = [visualize.fit_width(sheet, OVERVIEW_WIDTH) for sheet in sheets]
    visualize.write_image(
        folder / "overview.jpg", visualize.contact_sheet(rows, columns=1)
    )


def _result(run: Run, clip: Clip, t: int) -> np.ndarray:
    """Read back the mask that the predict stage wrote, at the clip's frame size."""
    path = run.workdir / "predict" / MASKS / clip.name / f"{clip.frames[t].name}.png"
    return evaluate.at_size(masks.read_png(path), clip.size)


def _view(run: Run, clip: Clip, scored: evaluate.Scored | None) -> report.SequenceView:
    """Draw some frames of a clip, evenly spread."""
    count = min(run.config.report.frames_per_sequence, len(clip.frames))
    chosen = np.linspace(0, len(clip.frames) - 1, count).round().astype(int)
    frames = tuple(_frame(run, clip, int(t), scored) for t in chosen)
    return report.SequenceView(clip.name, frames)


def _frame(
    run: Run, clip: Clip, t: int, scored: evaluate.Scored | None
) -> report.FrameView:
    image, found = clip.read(t), _result(run, clip, t)
    truth, score = None, None
    if scored is not None and t in scored.truth:
        truth = annotations.read_annotation(scored.truth[t])
        score = jaccard(evaluate.at_size(found, truth.shape), truth)
        truth = evaluate.at_size(truth, clip.size)
    soft = masks.read(run.workdir / "predict" / SOFT, clip)[t].astype(np.float32)
    pictures = {
        "frame": image,
        "object": visualize.overlay(image, found, truth),
        "channels": visualize.mask_channels(predict.to_frame(soft, clip.size)),
        **_trained_on(run, clip, t),
    }
    return report.view_frame(clip.frames[t].name, pictures, score)


def _trained_on(run: Run, clip: Clip, t: int) -> Mapping[str, np.ndarray]:
    """Return the frame's flow and stage-2 target, as far as there are any."""
    if "flow" not in _made(run):
        return {}
    trained = inputs.trained(run.config, clip)
    at = inputs.trained_index(run.config, clip, t)
    if at is None:
        return {}
    gap, found = run.config.flow.gaps[0], {}
    field = motion_masks.field_of_frame(inputs.flow(run), trained, at, gap)
    if field is not None:
        flow = field.flow.astype(np.float32)
        found["flow"] = visualize.flow_to_color(flow)
    folder = run.folder("refine") / TARGETS
    if (folder / f"{clip.name}.npz").is_file() and run.restored is None:
        target = target_files.read(folder, clip.name)[at]
        whole = cv2.resize(target, clip.size[::-1], interpolation=cv2.INTER_LINEAR)
        found["stage-2 target"] = visualize.grey(whole / np.float32(255))
    return found


def _panels(run: Run) -> Iterator[curves.Panel]:
    """Yield the training curves of both stages."""
    units = {"loss": "", "motion": PX, "appearance": "", "entropy": "nat"}
    for title, stage in (("stage 1", "discover"), ("stage 2", "refine")):
        log = inputs.training_log(run.folder(stage))
        for name, unit in units.items():
            found = [(r["step"], r[name]) for r in log if name in r]
            if found:
                steps, values = zip(*found, strict=True)
                line = curves.Curve(name, steps, values)
                yield curves.Panel(f"{title}: {name}", unit, (line,))


def _alignment(run: Run) -> tables.Table:
    """Tabulate how candidates scored, clip by clip."""
    values: dict[str, Any] = run.values("align")
    names = tuple(values["scores"])
    rows = [
        (clip, *(f"{row[name]:.3f}" for name in names))
        for clip, row in values["sequences"].items()
    ]
    mean = ("mean", *(f"{values['scores'][name]:.3f}" for name in names))
    chosen = "+".join(map(str, values["channels"]))
    return tables.Table(
        f"Alignment by the {values['judge']} judge, no annotations: channel {chosen}",
        ("sequence", *(f"channel {name}" for name in names)),
        (*rows, mean),
    )


def _targets(run: Run) -> tables.Table | None:
    """Tabulate what became of stage 1's masks, clip by clip."""
    made: dict[str, Any] = run.values("refine")["targets"]
    if not made:
        return None

    def row(name: str, one: dict[str, Any]) -> tuple[str, ...]:
        changed, removed = one["changed_by_crf"], one["changed_by_constraint"]
        shares = f"{100 * changed:.2f}", f"{100 * removed:.2f}"
        return name, str(one["frames"]), *shares, str(one["discarded"])

    rows = [row(name, one) for name, one in made["sequences"].items()]
    return tables.Table(
        "Share of pixels that each step changed; frames whose semantic match was too "
        "large to constrain anything",
        ("sequence", "frames", "CRF, %", "constraint, %", "discarded frames"),
        (*rows, row("all", made["total"])),
    )


def _warnings(run: Run) -> Iterator[str]:
    """Say which clips have flow of little use."""
    if "flow" not in _made(run):
        return
    for clip, signals in run.values("flow")["quality"].items():
        for name, value in signals.items():
            if name in flow.WARNINGS and value >= 0.5:
                yield f"{clip}: {flow.WARNINGS[name]}"
