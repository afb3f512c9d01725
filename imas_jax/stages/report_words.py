"""What the report says of pictures, channels and strips, for readers new to them."""

from collections.abc import Mapping, Sequence

from imas_jax.report import document, drawing
from imas_jax.runs.run import Run
from imas_jax.stages import motion

# What a picture shows, by caption; the channels are explained by `explained`.
EXPLAINED = {
    "frame": "The frame as it was read.",
    "object": "The result: the mask that the predict stage wrote, after everything.",
    "channels": "",
    "motion evidence": "How likely each pixel moves on its own, white is certain. Made "
    "before anything is learned on the clip; it judges the channels and, in some "
    "recipes, guides training.",
    "motion evidence, CRF": "The same after the CRF: edges follow the image. This is "
    "what later stages read.",
    "flow": "Optical flow to the next frame of the pair: hue is the direction, "
    "saturation the speed.",
    "flow less camera": "Flow after the camera's motion (a homography) was subtracted: "
    "what the network has to explain.",
    "reconstructed flow": "What the network makes of it: one motion a channel, plus a "
    "bounded residual.",
    "residual, its own scale": "The residual alone: motion within a channel.",
    "stage-2 target": "What stage 2 was trained to meet: stage 1's mask after the CRF "
    "and, where it is used, the semantic constraint.",
    "unsure": "The share of the mask's area that is undecided: pixels with a "
    "probability between 1/4 and 3/4, over all above 1/4. No annotation is asked.",
    "J": "Overlap of object and annotation, where there is one.",
    "agreement": "Overlap of the object with what moves (motion baseline).",
}


def channel_names(run: Run, clip: str) -> tuple[document.Channel, ...]:
    """Name a network's channels, the object's among them, with the judge's score."""
    told, config = run.values("align"), run.config
    judged = told["sequences"].get(clip, {})
    names = []
    for number in range(config.model.channels):
        name = "the object" if number in told["channels"] else "not the object"
        if number == 0 and config.model.still_background:
            name += ", held still"
        if str(number) in judged:
            name += f" ({told['judge']} judge: {judged[str(number)]:.2f})"
        colour = drawing.CHANNELS[number % len(drawing.CHANNELS)].astype(int).tolist()
        names.append(document.Channel(f"{number}: {name}", tuple(colour)))
    return tuple(names)


def explained(run: Run, views: Sequence[document.SequenceView]) -> Mapping[str, str]:
    """Return a sentence for each picture and strip that is shown."""
    shown = {caption for view in views for f in view.frames for caption in f.pictures}
    shown |= {one.name for view in views for one in view.strips}
    sentences = EXPLAINED | {"channels": _explain_channels(run)}
    return {caption: s for caption, s in sentences.items() if caption in shown}


def _explain_channels(run: Run) -> str:
    """Say what the network's channels are, and how the object's was found."""
    told, config = run.values("align"), run.config
    if motion.alone(config):
        return (
            f"Nothing was learned on the clip: channel {motion.GUIDED} is the motion "
            "evidence after the CRF, the others are the rest."
        )
    chosen = "+".join(map(str, told["channels"]))
    text = (
        f"The network gives every pixel to {config.model.channels} channels; colours "
        "mix by probability. They have no names of their own. "
    )
    if config.discover.motion_weight == 0:
        return text + (
            f"Channel {chosen} is the object: training pulled it, and no other, to the "
            "motion evidence."
        )
    return text + (
        f"Channel {chosen} is the object: the {told['judge']} judge, which sees no "
        "annotation, scored it best over all clips."
    )
