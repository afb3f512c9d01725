"""Which frames of which clips the report shows, and their pictures.

Evenly spread frames and the truly worst ones, which is asked of the scores of every
frame; where nothing is annotated, those whose masks agree least with what moves.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from imas_jax.appearance import semantic, targets
from imas_jax.data import annotations, images
from imas_jax.data.clips import Clip
from imas_jax.evaluation.protocol import Entry
from imas_jax.flow import files
from imas_jax.report import document, drawing
from imas_jax.runs.run import Run
from imas_jax.stages import (
    evaluate,
    explain,
    inputs,
    motion_baseline,
    predictor,
    soft_masks,
)
from imas_jax.stages.evaluate import Scored
from imas_jax.stages.predict import MASKS, SOFT
from imas_jax.stages.refine import TARGETS

WORST = 3  # of a clip's frames that are shown, however few are asked for
Values = dict[int, float]  # by frame position


class Views:
    """Draws a run's clips.

    Args:
        run: The run, predicted and evaluated.
        entries: What was scored; the last aligned one is the result.
        made: Stages that have a result.
    """

    def __init__(self, run: Run, entries: Sequence[Entry], made: Sequence[str]):
        self._run, self._flow = run, "flow" in made
        aligned = [entry for entry in entries if entry.kind == "aligned"]
        self._scores: dict[str, Values] = {
            score.name: dict(zip(score.frames, score.jaccard, strict=True))
            for score in (aligned[-1].scores if aligned else ())
        }
        self._scored = {one.clip.name: one for one in evaluate.annotated_clips(run)}
        self._trained: dict[str, Clip] = {}
        self._explainer = explain.explainer(run) if self._flow else None

    def draw(self, clips: Sequence[Clip]) -> tuple[document.SequenceView, ...]:
        """Draw the clips that went worst, as many as `document.sequences`."""
        worst = sorted(clips, key=self._rank)[: self._run.config.report.sequences]
        kept = [clip for clip in clips if clip in worst]
        return tuple(map(self._sequence, kept))

    def _rank(self, clip: Clip) -> tuple[bool, float]:
        """Sort by the clip's score; after the scored ones by its alignment."""
        if scores := self._scores.get(clip.name):
            return False, float(np.mean(list(scores.values())))
        told = self._run.values("align")
        chosen = "+".join(map(str, told["channels"]))
        return True, told["sequences"].get(clip.name, {}).get(chosen, 1.0)

    def _sequence(self, clip: Clip) -> document.SequenceView:
        scores = self._scores.get(clip.name, {})
        agreement = {} if scores else self._agreement(clip)
        shown = choose_frames(
            len(clip.frames),
            self._run.config.report.frames_per_sequence,
            scores or agreement,
        )
        frames = tuple(
            document.view_frame(
                clip.frames[t].name,
                self._pictures(clip, t),
                scores.get(t),
                agreement=agreement.get(t),
            )
            for t in shown
        )
        mean = float(np.mean(list(scores.values()))) if scores else None
        return document.SequenceView(
            clip.name, frames, f"{len(clip.frames)} frames", mean
        )

    def _agreement(self, clip: Clip) -> Values:
        """Compare every mask with the motion baseline's, where there is flow."""
        found: Values = {}
        for t in range(len(clip.frames)):
            field = self._field(clip, t)
            if field is not None:
                moving = motion_baseline.of_field(field, clip.size)
                mask = result(self._run, clip, t)
                found[t] = semantic.overlap(mask, moving)
        return found

    def _place(self, clip: Clip, t: int) -> tuple[Clip, int] | None:
        """Return the clip that was trained on, and the frame's place in it, if any."""
        if clip.name not in self._trained:  # finding cuts reads the whole clip
            self._trained[clip.name] = inputs.trained(self._run.config, clip)
        trained = self._trained[clip.name]
        wanted = clip.frames[t]
        at = next((i for i, f in enumerate(trained.frames) if f == wanted), None)
        return None if at is None else (trained, at)

    def _field(self, clip: Clip, t: int) -> files.FlowField | None:
        place = self._place(clip, t) if self._flow else None
        if place is None:
            return None
        gap = self._run.config.flow.gaps[0]
        return motion_baseline.field_of_frame(inputs.flow(self._run), *place, gap)

    def _pictures(self, clip: Clip, t: int) -> Mapping[str, np.ndarray]:
        image, found, truth = clip.read(t), result(self._run, clip, t), None
        scored: Scored | None = self._scored.get(clip.name)
        if scored is not None and t in scored.truth:
            annotation = annotations.read_annotation(scored.truth[t])
            truth = images.resize_mask(annotation, clip.size)
        folder = self._run.workdir / "predict" / SOFT
        soft = soft_masks.read(folder, clip)[t].astype(np.float32)
        return {
            "frame": image,
            "object": drawing.overlay(image, found, truth),
            "channels": drawing.mask_channels(predictor.to_frame(soft, clip.size)),
            **self._flow_pictures(clip, t),
            **self._target(clip, t),
        }

    def _flow_pictures(self, clip: Clip, t: int) -> Mapping[str, np.ndarray]:
        """Draw flow, and what the network makes of it, on one scale of speed."""
        field = self._field(clip, t)
        if field is None or self._explainer is None:
            return {}
        told = self._explainer(self._trained[clip.name], field)
        fastest = float(np.linalg.norm(told.target, axis=-1).max())
        shown = {"flow": drawing.flow_to_color(field.flow.astype(np.float32))}
        if self._run.config.flow.background != "none":
            shown["flow less camera"] = drawing.flow_to_color(told.target, fastest)
        else:
            shown["flow"] = drawing.flow_to_color(told.target, fastest)
        shown["reconstructed flow"] = drawing.flow_to_color(
            told.reconstruction, fastest
        )
        if told.residual.any():
            shown["residual, its own scale"] = drawing.flow_to_color(told.residual)
        return shown

    def _target(self, clip: Clip, t: int) -> Mapping[str, np.ndarray]:
        """Draw the frame's stage-2 target, where there is one."""
        folder = self._run.folder("refine") / TARGETS
        ours = not self._run.brought_in("refine")
        there = ours and (folder / f"{clip.name}.npz").is_file()
        place = self._place(clip, t) if there else None
        if place is None:
            return {}
        target = targets.read(folder, clip.name)[place[1]]
        whole = cv2.resize(target, clip.size[::-1], interpolation=cv2.INTER_LINEAR)
        return {"stage-2 target": drawing.grey(whole / np.float32(255))}


def choose_frames(count: int, spread: int, values: Values) -> list[int]:
    """Choose evenly spread frames and the worst of all.

    Args:
        count: Frames of the clip.
        spread: How many to spread.
        values: Of every frame that has one; low is bad.
    """
    even = np.linspace(0, count - 1, min(spread, count)).round().astype(int)
    worst = sorted(values, key=lambda t: (values[t], t))[:WORST]
    return sorted({*even.tolist(), *worst})


def result(run: Run, clip: Clip, t: int) -> np.ndarray:
    """Read back the mask that the predict stage wrote, at the clip's frame size."""
    path = run.workdir / "predict" / MASKS / clip.name / f"{clip.frames[t].name}.png"
    return images.resize_mask(soft_masks.read_png(path), clip.size)
