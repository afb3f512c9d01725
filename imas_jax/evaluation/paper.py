"""The paper's own numbers, J in percent: Table 2, and section 6.4 by sequence.

Section 6.4 has frame means. Table 2 has every system that the paper compares, each as
its authors average; a missing value is one that the paper has not either.
"""

import dataclasses

DAVIS16 = {
    "blackswan": 66.1,
    "bmx-trees": 60.2,
    "breakdance": 81.0,
    "camel": 83.9,
    "car-roundabout": 87.6,
    "car-shadow": 85.3,
    "cows": 87.0,
    "dance-twirl": 85.7,
    "dog": 82.8,
    "drift-chicane": 78.8,
    "drift-straight": 78.8,
    "goat": 80.1,
    "horsejump-high": 87.4,
    "kite-surf": 64.2,
    "libby": 82.8,
    "motocross-jump": 72.0,
    "paragliding-launch": 63.0,
    "parkour": 86.2,
    "scooter-black": 82.1,
    "soapbox": 87.2,
}
SEGTRACKV2 = {
    "bird of paradise": 86.7,
    "birdfall": 1.9,
    "bmx": 75.1,
    "cheetah": 50.6,
    "drift": 87.1,
    "frog": 77.1,
    "girl": 83.2,
    "hummingbird": 54.6,
    "monkey": 86.4,
    "monkeydog": 15.4,
    "parachute": 93.8,
    "penguin": 64.5,
    "soldier": 82.0,
    "worm": 85.6,
}
FBMS59 = {
    "camel01": 89.8,
    "cars1": 85.4,
    "cars10": 32.4,
    "cars4": 83.9,
    "cars5": 80.0,
    "cats01": 90.4,
    "cats03": 69.8,
    "cats06": 56.9,
    "dogs01": 61.7,
    "dogs02": 84.4,
    "farm01": 80.5,
    "giraffes01": 58.5,
    "goats01": 78.1,
    "horses02": 82.4,
    "horses04": 77.3,
    "horses05": 53.5,
    "lion01": 78.1,
    "marple12": 76.3,
    "marple2": 85.4,
    "marple4": 87.2,
    "marple6": 54.4,
    "marple7": 78.6,
    "marple9": 49.6,
    "people03": 81.2,
    "people1": 79.8,
    "people2": 83.6,
    "rabbits02": 74.0,
    "rabbits03": 55.8,
    "rabbits04": 0.5,
    "tennis": 78.5,
}
PER_SEQUENCE: dict[str, dict[str, float]] = {
    "davis": DAVIS16,
    "segtrackv2": SEGTRACKV2,
    "fbms59": FBMS59,
}
FRAME_MEAN: dict[str, float] = {"davis": 79.8, "segtrackv2": 72.7, "fbms59": 69.0}


@dataclasses.dataclass(frozen=True)
class System:
    """A row of Table 2.

    Attributes:
        name: As the paper calls it.
        davis: J on DAVIS16's validation set, percent; None where the paper has a dash.
        segtrackv2: The same on SegTrackv2.
        fbms59: The same on FBMS59's test set.
        mark: Of `NOTES`, beside the name; "".
        processing: What is done to masks afterwards; "" in the table's upper half.
        processing_mark: Of `NOTES`, beside that; "".
    """

    name: str
    davis: float | None
    segtrackv2: float | None
    fbms59: float | None
    mark: str = ""
    processing: str = ""
    processing_mark: str = ""


# The marks are the paper's; what they stand for is told in its Sections 2 and 4.2.
NOTES = {
    "*": "another network: Swin-T and MaskFormer in place of a ResNet",
    "\N{DAGGER}": "learned from synthetic clips whose shapes people annotated",
    "\N{DOUBLE DAGGER}": "more than a CRF: multi-step flow, multi-crop ensemble, "
    "temporal smoothing (SP), or DINO tuned on the test clip",
}
_PERSON, _MORE = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
SYSTEMS = (
    System("SAGE", 42.6, 57.6, 61.2),
    System("CUT", 55.2, 54.3, 57.2),
    System("FTS", 55.8, 47.8, 47.7),
    System("EM", 69.8, None, None),
    System("CIS", 59.2, 45.6, 36.8),
    System("MG", 68.3, 58.6, 53.1),
    System("AMD", 57.8, 57.0, 47.5),
    System("SIMO", 67.8, 62.0, None),
    System("GWM", 71.2, 66.7, 60.9),
    System("GWM", 71.2, 69.0, 66.9, "*"),
    System("OCLR", 72.1, 67.6, 65.4, _PERSON),
    System("IMAS-LR", 77.3, 67.9, 67.1),
    System("IMAS", 77.7, 68.6, 67.4),
    System("CIS", 71.5, 62.0, 63.6, "", "CRF + SP", _MORE),
    System("GWM", 73.4, 72.0, 68.6, "*", "CRF + SP", _MORE),
    System("OCLR", 78.9, 71.6, 68.7, _PERSON, "tuning DINO", _MORE),
    System("IMAS-LR", 79.5, 72.2, 68.9, "", "CRF only"),
    System("IMAS", 79.8, 72.7, 69.0, "", "CRF only"),
)


def sequence_jaccard(dataset: str, sequence: str) -> float | None:
    """Return the paper's J of a sequence in percent, or None where it has none.

    Spaces, underscores and hyphens are the same: releases of SegTrackv2 differ in them.
    """
    table = {_plain(k): v for k, v in PER_SEQUENCE.get(dataset, {}).items()}
    return table.get(_plain(sequence))


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")
