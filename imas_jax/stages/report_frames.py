"""Which frames of which clips the report shows, and their pictures.

Evenly spread frames, the truly worst ones, which is asked of the scores of every frame
(where nothing is annotated, those whose masks agree least with what moves), and those
the run is most unsure of.
"""

import math
from collections.abc import Callable, Mapping, Sequence

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
    motion,
    motion_baseline,
    predictor,
    report_words,
    soft_masks,
    unsure,
)
from imas_jax.stages.evaluate import Scored
from imas_jax.stages.predict import MASKS, SOFT
from imas_jax.stages.refine import TARGETS

WORST = 3  # of a clip's frames that are shown, however few are asked for
UNSURE = 2  # and of those that it is most unsure of
UNSURE_COLOUR = (224, 122, 48)  # of the strip; reads on light and dark
Values = dict[int, float]  # by frame position


class Views:
    """Draws a run's clips.

    Args:
        run: The run, predicted and evaluated.
        entries: What was scored; the last aligned one is the result.
        made: Stages that have a result.
        links: To a clip's files.
    """

    def __init__(
        self,
        run: Run,
        entries: Sequence[Entry],
        made: Sequence[str],
        links: Callable[[str], tuple[document.Link, ...]],
    ):
        self._run, self._links = run, links
        self._flow, self._motion = "flow" in made, "motion" in made
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
        doubts = unsure.of_clip(self._run, clip)
        shown = choose_frames(
            len(clip.frames),
            self._run.config.report.frames_per_sequence,
            scores or agreement,
            doubts,
        )
        frames = tuple(
            document.FrameView(
                clip.frames[t].name,
                document.encode(self._pictures(clip, t)),
                place=t,
                jaccard=scores.get(t),
                agreement=agreement.get(t),
                unsure=doubts[t],
            )
            for t in shown
        )
        values = {
            "unsure": dict(enumerate(doubts)),
            "J": scores,
            "agreement": agreement,
        }
        strips = [_strip(name, one, len(clip.frames)) for name, one in values.items()]
        return document.SequenceView(
            clip.name,
            frames,
            f"{len(clip.frames)} frames",
            float(np.mean(list(scores.values()))) if scores else None,
            strips=tuple(one for one in strips if np.isfinite(one.values).any()),
            channels=report_words.channel_names(self._run, clip.name),
            links=self._links(clip.name),
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
            **self._evidence(clip, t),
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

    def _evidence(self, clip: Clip, t: int) -> Mapping[str, np.ndarray]:
        """Draw the motion evidence as it was found, and as later stages read it."""
        place = self._place(clip, t) if self._motion else None
        if place is None:
            return {}
        trained, at = place
        kinds = {"motion evidence": False}
        if (
            self._run.config.motion.evidence == "network"
            and self._run.config.motion.crf
        ):
            kinds["motion evidence, CRF"] = True
        return {
            caption: drawing.grey(motion.opened(self._run, trained, refined)(at))
            for caption, refined in kinds.items()
        }

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


def choose_frames(
    count: int, spread: int, values: Values, doubts: Sequence[float] = ()
) -> list[int]:
    """Choose evenly spread frames, the worst of all and the most unsure.

    Args:
        count: Frames of the clip.
        spread: How many to spread.
        values: Of every frame that has one; low is bad.
        doubts: Of every frame; high is unsure.
    """
    even = np.linspace(0, count - 1, min(spread, count)).round().astype(int)
    worst = sorted(values, key=lambda t: (values[t], t))[:WORST]
    least = sorted(range(len(doubts)), key=lambda t: (-doubts[t], t))[:UNSURE]
    return sorted({*even.tolist(), *worst, *least})


def result(run: Run, clip: Clip, t: int) -> np.ndarray:
    """Read back the mask that the predict stage wrote, at the clip's frame size."""
    path = run.workdir / "predict" / MASKS / clip.name / f"{clip.frames[t].name}.png"
    return images.resize_mask(soft_masks.read_png(path), clip.size)


def _strip(name: str, values: Values, count: int) -> document.Strip:
    """Lay a number of some frames out over all of a clip's."""
    laid = tuple(values.get(t, math.nan) for t in range(count))
    if name == "unsure":
        return document.Strip(name, laid, UNSURE_COLOUR, top=None)
    return document.Strip(name, laid, drawing.OBJECT)
