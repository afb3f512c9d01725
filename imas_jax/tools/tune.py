"""The tuner as a tool (paper Sec. 3.4, Fig. 5): ranks masks from anywhere.

Candidates are folders of masks, of any method (`align.masks`), or the channels of all
checkpoints of a sweep of runs (`align.sweep`). Nothing is trained and no annotation is
read; what is compared is only how well masks agree with motion or with themselves.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.appearance import alignment, ranking
from imas_jax.data import clips as clips_lib
from imas_jax.data.clips import Clip
from imas_jax.errors import ProblemList, UserError
from imas_jax.evaluation import mask_folders, tables
from imas_jax.evaluation.mask_folders import MaskFolder
from imas_jax.runs.records import digest
from imas_jax.runs.restoring import adopt_network
from imas_jax.runs.run import Output, Run
from imas_jax.stages import align, network
from imas_jax.stages.predictor import Predictor, to_frame
from imas_jax.tools import folder_lists
from imas_jax.training.checkpoints import Checkpoints

OBJECT = 0.5  # a soft mask above it is object, as in equation 13's comparison


def work(run: Run) -> Output:
    """Rank all candidates; the table is logged and stored."""
    if run.config.align.features == "stage1":
        raise UserError(
            "align.features = 'stage1'",
            "features that do not belong to one of the networks that are compared",
            "leave it out, or name weights, superpixels or palette",
        )
    judge = align.make_judge(run, align.moving_from_frames(run))
    if run.config.align.masks:
        groups = list(_score_folders(run, judge))
    else:
        groups = list(_score_sweep(run, judge))
    found = ranking.rank(run.config.align.score, groups)
    told = [tables.SUPERVISED + one for one in align.supervised(run.config)]
    text = "\n".join([found.text(), *told])
    files.write_text(run.workdir / "tune" / "ranking.txt", text + "\n")
    logging.info("\n%s", text)
    return Output(identity=digest(found.to_json()), values=found.to_json())


def _clips(config: ConfigDict) -> tuple[Clip, ...]:
    """Find the clips to judge; what moves takes two frames to see, what matches one."""
    fewest = 2 if "motion" in align.PARTS[config.align.score] else 1
    return clips_lib.find_clips(config.data, fewest=fewest)


def _score_folders(run: Run, judge: align.Judge) -> Iterator[ranking.Scored]:
    clips = _clips(run.config)
    found = folder_lists.paths(run.config.align.masks, "align.masks")
    opened, judged = _open(run, found, clips)
    names = folder_lists.short_names(found)
    for name, masks in zip(names, opened, strict=True):
        scored = {}
        for clip, frames in judged:
            candidates = (_candidate(masks, clip, t) for t in frames)
            scored[clip.name] = list(judge([(clip, t) for t in frames], candidates))
        yield ranking.Scored((name,), scored)


def _judged_frames(run: Run, folders: Sequence[MaskFolder], clip: Clip) -> list[int]:
    """Return the frames to judge: of all, not an end that some folder lacks.

    Flow methods leave no mask of a sequence's last frame.
    """
    wanted, ends = align.judged_frames(run, clip), (0, len(clip.frames) - 1)
    if run.config.align.judged != "all":
        return wanted
    return [
        t
        for t in wanted
        if t not in ends
        or all(folder.find(clip.name, clip.frames[t].name) for folder in folders)
    ]


def _open(
    run: Run, folders: list[Path], clips: tuple[Clip, ...]
) -> tuple[list[MaskFolder], list[tuple[Clip, list[int]]]]:
    """Open all mask folders; everything wrong with any of them is told at once.

    Returns:
        The folders; the clips that all of them have, with the frames to judge.
    """
    problems, opened = ProblemList(), []
    for folder in folders:
        try:
            opened.append(mask_folders.open_masks(folder, threshold=OBJECT))
        except UserError as error:
            problems.add(folder, error.found)
    common = [
        (clip, _judged_frames(run, opened, clip))
        for clip in clips
        if all(clip.name in masks.files for masks in opened)
    ]
    known = {name for masks in opened for name in masks.files}
    left_out = sorted(known - {clip.name for clip, _ in common})
    if common and left_out:
        logging.warning(
            "not judged, for not every folder has them or they have no frames: %s",
            ", ".join(left_out),
        )
    for clip, frames in common:
        if not frames:
            problems.add(clip.name, "no frame has a mask in every folder")
    for masks in opened:
        _check_masks(masks, common, problems)
    if opened and not common:
        clips_there = ", ".join(clip.name for clip in clips[:5])
        for masks in opened:
            there = ", ".join(list(masks.files)[:5])
            problems.add(
                masks.root, f"sequences {there}; the frames are of {clips_there}"
            )
    problems.raise_if_any(
        "align.masks",
        "folders <sequence>/<frame>.png with masks of every judged frame, of the "
        "frames' shape, and at least one sequence in common with the frames",
        "repair or leave out what is named; --config.align.judged=first wants masks "
        "of first frames only",
    )
    return opened, common


def _check_masks(
    masks: MaskFolder, judged: Sequence[tuple[Clip, list[int]]], problems: ProblemList
) -> None:
    """Look at every judged mask: there, readable, of the right shape, not all empty."""
    empty = True
    for clip, frames in judged:
        missing = []
        for t in frames:
            path = masks.find(clip.name, clip.frames[t].name)
            if path is None:
                missing.append(clip.frames[t].name)
                continue
            try:
                values = mask_folders.read_values(path)
                empty &= not values.any()
            except UserError as error:
                problems.add(path, error.found)
                continue
            if not mask_folders.same_shape(values.shape, clip.size):
                problems.add(path, f"is {values.shape} (h, w), its frame {clip.size}")
        if missing:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            problems.add(
                masks.root / clip.name, f"{len(missing)} mask(s) missing: {some}"
            )
    if judged and empty:
        logging.warning("%s: every judged mask is empty; it scores 0", masks.root)


def _candidate(masks: MaskFolder, clip: Clip, t: int) -> alignment.CandidateMasks:
    """Read one mask as the only candidate of its folder, at frame size."""
    frame = clip.frames[t].name
    if masks.encoding == "soft":
        path = masks.find(clip.name, frame)
        assert path is not None  # checked by _open
        soft = cv2.resize(mask_folders.read_values(path), clip.size[::-1])
        hard = soft > masks.threshold
    else:
        hard = masks.read(clip.name, frame, clip.size)
        soft = hard.astype(np.float32)
    return alignment.CandidateMasks(soft[..., None], hard[..., None])


def _score_sweep(run: Run, judge: align.Judge) -> Iterator[ranking.Scored]:
    """Score every channel of every kept stage-1 checkpoint of every run."""
    clips = _clips(run.config)
    folders = folder_lists.paths(run.config.align.sweep, "align.sweep")
    for folder, name in zip(folders, folder_lists.short_names(folders), strict=True):
        config = run.config.copy_and_resolve_references().unlock()
        config.restore = str(folder)
        config = adopt_network(config)
        channels, largest = config.model.channels, config.align.largest
        candidates = alignment.list_candidates(channels, largest)
        for step, predictor in predictors(config, folder):
            yield ranking.Scored(
                tuple(
                    f"{name} step {step} channel {'+'.join(map(str, candidate))}"
                    for candidate in candidates
                ),
                {
                    clip.name: _judge_clip(run, judge, clip, predictor, candidates)
                    for clip in clips
                },
            )


def predictors(config: ConfigDict, folder: Path) -> Iterator[tuple[int, Predictor]]:
    """Open a run's stage-1 checkpoints one after the other, oldest first."""
    template, predictor = network.template(config, "discover"), None
    checkpoints = Checkpoints(folder / "discover" / "checkpoints")
    try:
        for step in checkpoints.steps():
            variables = checkpoints.restore_step(step, template).best_variables
            if predictor is None:
                workdir = Path(config.workdir)
                predictor = network.predictor(config, workdir, variables)
            predictor.load(variables)
            yield step, predictor
    finally:
        checkpoints.close()


def _judge_clip(
    run: Run,
    judge: align.Judge,
    clip: Clip,
    predictor: Predictor,
    candidates: tuple[alignment.Candidate, ...],
) -> list[alignment.FrameScores]:
    wanted = align.judged_frames(run, clip)
    softs = predictor(clip.read(t) for t in wanted)
    masks = (
        alignment.candidate_masks(to_frame(soft, clip.size), candidates)
        for soft in softs
    )
    return list(judge([(clip, t) for t in wanted], masks))
