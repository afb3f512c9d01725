"""Watches training: curves, pictures and, only if asked for, J of a validation pass.

J is read off annotations by `evaluate.watched_jaccard`. It is logged under "watched,
never used": nothing here returns anything to training, and with or without a watcher a
run ends with the same bits.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from imas_jax.conventions import Tree
from imas_jax.data.clips import Clip
from imas_jax.report import drawing
from imas_jax.runs.run import Run
from imas_jax.stages import evaluate, inputs, motion_baseline, network
from imas_jax.stages.predictor import Predictor, to_frame
from imas_jax.training import parallel, sinks
from imas_jax.training.state import TrainState
from imas_jax.training.watching import Nobody, Watcher

CLIPS, WIDTH = 4, 320  # clips that are drawn, and the width of a picture
WATCHED = "watched_never_used"


def watcher(run: Run, stage: str) -> Watcher:
    """Build what watches a training stage of this run, by `config.watch`."""
    if parallel.process()[0] != 0:
        return Nobody()
    return StageWatcher(run, stage)


class StageWatcher:
    """Watches one stage.

    Args:
        run: The run; `config.watch` says what is watched.
        stage: "discover" or "refine".
    """

    def __init__(self, run: Run, stage: str):
        self._run, self._stage = run, stage
        self._config = run.config.watch
        self._sinks: list[sinks.Sink] = []
        self._own: list[sinks.Sink] = []
        self._predictor: Predictor | None = None
        self._jaccard: evaluate.Watched | None = None

    def start(self, step: int) -> None:
        """Open what is written to."""
        folder = self._run.workdir / self._stage
        folder.mkdir(parents=True, exist_ok=True)
        if self._config.tensorboard:
            self._sinks.append(sinks.TensorBoard(folder / "events", step))
        if self._config.wandb:
            self._sinks.append(sinks.WeightsAndBiases(self._config.wandb, folder))
        if self._config.trackio:
            self._sinks.append(sinks.Trackio(self._config.trackio, folder))
        if self._config.jaccard_every:
            channels: tuple[int, ...] = ()
            if self._stage == "refine":
                channels = tuple(self._run.values("align")["channels"])
            self._jaccard = evaluate.watched_jaccard(self._run, channels)
            self._own = [sinks.JsonLines(folder / "watched.jsonl", step)]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass numbers on."""
        for sink in self._sinks:
            sink.scalars(step, values)

    def wants(self, step: int) -> bool:
        """Tell whether pictures or J are due."""
        rhythms = (self._config.images_every, self._config.jaccard_every)
        return any(every and step % every == 0 for every in rhythms)

    def state(self, step: int, state: TrainState) -> None:
        """Draw some frames, and score some."""
        predictor = self._load(state.best_variables)
        if self._config.images_every and step % self._config.images_every == 0:
            pictures = draw(self._run, predictor)
            for sink in self._sinks:
                sink.pictures(step, pictures)
        due = self._config.jaccard_every
        if self._jaccard is not None and due and step % due == 0:
            told = {f"{WATCHED}/{k}": v for k, v in self._jaccard(predictor).items()}
            for sink in (*self._sinks, *self._own):
                sink.scalars(step, told)
            text = ", ".join(f"{name} {value:.3f}" for name, value in told.items())
            logging.info("%s step %d  %s", self._stage, step, text)

    def close(self) -> None:
        """Close what was opened."""
        for sink in (*self._sinks, *self._own):
            sink.close()

    def _load(self, variables: Tree) -> Predictor:
        if self._predictor is None:
            run = self._run
            made = network.predictor(run.config, run.workdir, variables, devices=1)
            self._predictor = made  # single frames
        self._predictor.load(variables)
        return self._predictor


def draw(run: Run, predictor: Predictor) -> dict[str, np.ndarray]:
    """Draw frame, channels and flow of the middle of the first clips, side by side."""
    pictures = {}
    for clip in inputs.training_clips(run)[:CLIPS]:
        t = len(clip.frames) // 2
        image = clip.read(t)
        (soft,) = predictor([image])
        row = [image, drawing.mask_channels(to_frame(soft, clip.size))]
        row += _flow(run, clip, t)
        sheet = [drawing.fit_width(picture, WIDTH) for picture in row]
        pictures[f"frames/{clip.name}"] = drawing.contact_sheet(sheet, len(sheet))
    return pictures


def _flow(run: Run, clip: Clip, t: int) -> Sequence[np.ndarray]:
    gap = run.config.flow.gaps[0]
    field = motion_baseline.field_of_frame(inputs.flow(run), clip, t, gap)
    if field is None:
        return ()
    return (drawing.flow_to_color(field.flow.astype(np.float32)),)
