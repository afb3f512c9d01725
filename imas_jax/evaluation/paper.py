"""The paper's own numbers: per-sequence J of section 6.4, in percent, frame means."""

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


def sequence_jaccard(dataset: str, sequence: str) -> float | None:
    """Return the paper's J of a sequence in percent, or None where it has none.

    Spaces, underscores and hyphens are the same: releases of SegTrackv2 differ in them.
    """
    table = {_plain(k): v for k, v in PER_SEQUENCE.get(dataset, {}).items()}
    return table.get(_plain(sequence))


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")
