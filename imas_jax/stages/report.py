"""One HTML file, overlay pictures and a video per clip: what a run looks like.

Everything shown was computed by earlier stages; here it is only drawn.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from imas_jax.data import images
from imas_jax.data.clips import Clip
from imas_jax.evaluation import tables
from imas_jax.report import curves, document, drawing, movie
from imas_jax.runs.records import flatten, typed, versions
from imas_jax.runs.run import Output, Run
from imas_jax.stages import (
    evaluate,
    flow,
    inputs,
    motion,
    report_frames,
    report_links,
    report_words,
    supervision,
)
from imas_jax.stages.predict import MASKS

HTML, OVERLAYS, VIDEOS = "report.html", "overlays", "videos"
SHEET = 5  # frames of a clip's contact sheet
OVERVIEW, OVERVIEW_WIDTH = 6, 1280  # clips on the overview, its width in pixels
PX = "px"
SMOOTHED = 25  # steps that a training curve is averaged over


def work(run: Run) -> Output:
    """Draw the report, a contact sheet and an overlay video of every clip."""
    folder = run.workdir / "report"
    clips = inputs.clips(run)
    for clip in clips:
        _write_pictures(run, folder, clip)
    _write_overview(folder, clips[:OVERVIEW])
    entries = evaluate.read_entries(run)
    links = report_links.Links(run.workdir)
    drawn = report_frames.Views(run, entries, _made(run), links.of_clip).draw(clips)
    page = document.Report(
        title=f"IMAS: {Path(run.config.workdir).name}",
        subtitle=_subtitle(clips),
        command=typed(),
        entries=entries,
        empty=evaluate.empty_rule(run.config),
        panels=tuple(_panels(run)),
        alignment=_alignment(run),
        targets=_targets(run),
        sequences=drawn,
        explained=report_words.explained(run, drawn),
        links=links.of_all(),
        warnings=tuple(warnings(run)),
        seconds={name: run.result(name)["seconds"] for name in _made(run)},
        config="\n".join(f"{k} = {v!r}" for k, v in flatten(run.config).items()),
        versions=versions(),
    )
    path = folder / HTML
    document.write(path, page)
    for table in _headlines(page):
        logging.info("\n%s", table.text())
    logging.info("overlays: %s, videos: %s", folder / OVERLAYS, folder / VIDEOS)
    logging.info("at a glance: %s", folder / "overview.jpg")
    logging.info("masks: %s", run.workdir / "predict" / MASKS)
    return Output(
        "drawn",
        {
            "report": str(path),
            "overlays": str(folder / OVERLAYS),
            # Of the clips that are shown.
            "unsure": {view.name: _mean_unsure(view) for view in drawn},
        },
    )


def _mean_unsure(view: document.SequenceView) -> float:
    (values,) = [strip.values for strip in view.strips if strip.name == "unsure"]
    return float(np.mean(values))


def _subtitle(clips: Sequence[Clip]) -> str:
    frames = sum(len(clip.frames) for clip in clips)
    return f"{len(clips)} clip{'s' if len(clips) != 1 else ''}, {frames} frames"


def _headlines(page: document.Report) -> Iterator[tables.Table]:
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
            picture = drawing.overlay(clip.read(t), report_frames.result(run, clip, t))
            if t in chosen:
                kept.append(picture)
            yield picture

    movie.write_video(video, pictures(), clip.rate)
    drawing.write_image(sheet, drawing.contact_sheet(kept, columns=len(kept)))


def _write_overview(folder: Path, clips: Sequence[Clip]) -> None:
    """Put the first clips' sheets on one picture: the run at a glance."""
    sheets = [images.read_image(folder / OVERLAYS / f"{c.name}.jpg") for c in clips]
    rows = [drawing.fit_width(sheet, OVERVIEW_WIDTH) for sheet in sheets]
    drawing.write_image(folder / "overview.jpg", drawing.contact_sheet(rows, columns=1))


def _panels(run: Run) -> Iterator[curves.Panel]:
    """Yield the training curves of both stages."""
    units = {
        "loss": "",
        "motion": PX,
        "photometric": "",
        "evidence": "",
        "appearance": "",
        "entropy": "nat",
        "learning_rate": "",
    }
    for title, stage in (("stage 1", "discover"), ("stage 2", "refine")):
        log = inputs.training_log(run.folder(stage))
        for name, unit in units.items():
            found = [(r["step"], r[name]) for r in log if name in r]
            if found:
                steps, values = zip(*found, strict=True)
                lines = [curves.Curve(name, steps, values)]
                if name != "learning_rate" and len(values) > 2 * SMOOTHED:
                    lines.append(_smooth(lines[0]))
                yield curves.Panel(f"{title}: {name}", unit, tuple(lines))


def _smooth(curve: curves.Curve) -> curves.Curve:
    """Average a noisy curve over neighbouring steps."""
    window = np.ones(SMOOTHED) / SMOOTHED
    means = np.convolve(np.asarray(curve.values, float), window, mode="valid")
    first = SMOOTHED // 2
    steps = curve.steps[first : first + len(means)]
    return curves.Curve(f"mean of {SMOOTHED} steps", steps, means.tolist())


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
        _supervised(run),
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
        _supervised(run),
    )


def _supervised(run: Run) -> tuple[str, ...]:
    """Return the line that tables owe to weights from human labels, if there are."""
    told = supervision.of_run(run)
    return (tables.SUPERVISED + told,) if told else ()


def warnings(run: Run) -> Iterator[str]:
    """Say which clips have flow of little use, or nothing that moves, and more."""
    yield from _supervised(run)
    if "motion" in _made(run):
        moving = run.values("motion").get("moving", {})
        yield from (f"{clip}: {motion.NOTHING}" for clip in motion.still(moving))
    if "flow" not in _made(run):
        return
    for clip, signals in run.values("flow")["quality"].items():
        for name, value in signals.items():
            if name in flow.WARNINGS and value >= 0.5:
                yield f"{clip}: {flow.WARNINGS[name]}"
