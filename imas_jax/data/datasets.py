"""What is known of each published data set: one record each, and nobody else knows it.

Folder names, image sets, published counts, what is scored, and what ground truth looks
like. `layouts.py` lists clips by these records, `clip_checks.py` compares counts with
them, `annotations.py` alone reads ground truth by them. The paper's own numbers are in
`evaluation/paper.py`; what is trained and how, in `configs/`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """Where annotations lie and how they are read.

    Attributes:
        folders: Where a clip's files lie, the first whose parent is there: `{clip}` is
            its name, `{resolution}` that of the frames.
        within: What the folders are below: the root, or the folder of the frames.
        form: "masks" are named as their frames; above 127 is the object, or numbers
            above 0 of a palette image. "fbms" files are numbered as their frames; the
            object is above a threshold, and white is background in `.ppm` files.
        objects: Whether each object of a clip may have a folder of its own.
        complete: Whether every frame is annotated.
        sized: Whether masks are as large as their frames.
        threshold: In [0, 1], for "fbms".
        thresholds: By clip, where it is another.
        absent: What a frame scores in which neither ground truth nor mask has any
            object: "one", or "skip" for none (the authors' tools).
    """

    folders: tuple[str, ...]
    within: Literal["root", "frames"] = "root"
    form: Literal["masks", "fbms"] = "masks"
    objects: bool = False
    complete: bool = False
    sized: bool = False
    threshold: float = 0.1
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    absent: Literal["one", "skip"] = "one"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set as published.

    Attributes:
        title: As papers call it.
        source: Where to get it.
        licence: As its page says.
        parts: Folders that hold a folder a clip, below the root; of each part the
            spellings it is found under, the last that is there. `{resolution}` where
            there are several.
        splits: Image set -> indices of `parts`; empty where all clips are one set.
        lists: Folders with a text file for each image set, in place of `splits`.
        counts: Image set -> sequences and frames as published (0: not counted); "" is
            every sequence.
        counted: Resolutions that the counts hold for; empty for all.
        scored: Image set the paper scores, or None.
        truth: Ground truth.
    """

    title: str
    source: str
    licence: str
    parts: tuple[tuple[str, ...], ...]
    truth: GroundTruth
    splits: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    lists: tuple[str, ...] = ()
    counts: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    counted: tuple[str, ...] = ()
    scored: str | None = None


DAVIS16 = Dataset(
    title="DAVIS16",
    source='davischallenge.org, "DAVIS 2016", TrainVal 480p',
    licence="CC BY-NC 4.0",
    parts=(("JPEGImages/{resolution}",),),
    lists=(
        "ImageSets/{resolution}",
        "ImageSets/2016",
        "ImageSets/2017",
        "ImageSets",
    ),
    counts={"trainval": (50, 3455), "train": (30, 2079), "val": (20, 1376)},
    counted=("480p", "1080p"),
    scored="val",
    truth=GroundTruth(("Annotations/{resolution}/{clip}",), complete=True, sized=True),
)

SEGTRACKV2 = Dataset(
    title="SegTrackv2",
    source="web.engr.oregonstate.edu/~lif/SegTrack2/dataset.html",
    licence="none that we know of; cite Li et al., ICCV 2013",
    parts=(("JPEGImages",),),
    counts={"": (14, 976)},
    scored="",
    truth=GroundTruth(
        ("GroundTruth/{clip}",), objects=True, complete=True, absent="skip"
    ),
)

FBMS59 = Dataset(
    title="FBMS59",
    source="lmb.informatik.uni-freiburg.de/resources/datasets",
    licence="research only, no commercial use; cite Ochs et al., PAMI 2014",
    parts=(
        ("Trainingset", "TrainingSet", "TrainingSet/Data"),
        ("Testset", "TestSet", "TestSet/Data"),
    ),
    splits={"train": (0,), "val": (1,), "test": (1,), "trainval": (0, 1), "": (0, 1)},
    counts={
        "": (59, 13860),
        "trainval": (59, 13860),
        "train": (29, 0),
        "val": (30, 0),
        "test": (30, 0),
    },
    scored="test",
    truth=GroundTruth(
        ("GroundTruth",),  # of about every 20th frame
        within="frames",
        form="fbms",
        threshold=0.1,  # peers' readers; two shots differ
        thresholds={"marple7": 0.05, "marple2": 0.4},
        absent="skip",
    ),
)

YOUTUBE_VOS = Dataset(
    title="YouTube-VOS",
    source="youtube-vos.org, `train_all_frames`",
    licence="as its page says: research only; the videos are their owners'",
    parts=(("JPEGImages", "train_all_frames/JPEGImages"),),
    truth=GroundTruth(("train/Annotations/{clip}", "Annotations/{clip}")),
)

# By `data.layout`.
DATASETS: Mapping[str, Dataset] = {
    "davis": DAVIS16,
    "segtrackv2": SEGTRACKV2,
    "fbms59": FBMS59,
    "youtube_vos": YOUTUBE_VOS,
}
