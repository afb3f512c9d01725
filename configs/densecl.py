r"""DenseCL: trains a backbone for `model.weights` on images alone, no annotations.

    python -m imas_jax.main --config=configs/densecl.py \
        --config.data.root=FOLDER --config.workdir=runs/densecl

FOLDER holds images of any size in any folders below it, or videos, or is a DAVIS
folder. Weights come to `<workdir>/pretrain/backbone.safetensors`:

    python -m imas_jax.main --config=configs/davis.py ... \
        --config.model.weights=runs/densecl/pretrain/backbone.safetensors

The recipe is the authors' for ImageNet (Wang et al., CVPR 2021; densecl_imagenet_200ep
of their code): ResNet-50, 200 epochs, batch 256, eight GPUs for days. For other data
set `pretrain.steps` (their COCO recipe: 800 epochs at a learning rate of 0.3).

`--config=configs/densecl.py:small` is ours: a ResNet-18 on some thousand frames, in
less than an hour of one CPU core. What it gives:
benchmarks/results/label_propagation.md. More: docs/pretraining.md.
"""

from ml_collections import ConfigDict

from imas_jax.configs import davis


def get_config(variant: str = "") -> ConfigDict:
    """Build the recipe; `variant` is "" or "small"."""
    if variant not in ("", "small"):
        raise ValueError(f"unknown variant {variant!r}; known: '' and 'small'")
    config = davis.get_config()
    config.stage = "pretrain"
    config.workdir = "runs/densecl"
    config.data.layout = "auto"
    config.data.split = ""  # all there is
    config.model.output_stride = 32
    if variant == "small":
        _small(config)
    return config


def _small(config: ConfigDict) -> None:
    """Change what a few clips and two CPU cores want otherwise; all of it ours."""
    config.model.backbone = "resnet18"
    config.pretrain.update(
        {
            "steps": 4000,  # 31 epochs of 2,079 frames, what was measured
            "batch_size": 16,
            "groups": 2,
            "queue": 512,  # of few clips more would be mostly the same scenes
            "momentum": 0.99,  # thousands of steps, not hundreds of thousands
            "learning_rate": 0.015,  # for the batch; 0.03 did not settle
            "hidden": 256,
            # Layer 3, at stride 16: at stride 32 a view of 128 px has 4x4 places. What
            # is deeper stays as it started.
            "stage": 2,
            "short_side": 240,
            "crop": 128,
            "scale": (0.08, 0.5),
            "jitter": 0.5,
            "grey": 0.0,
            "blur": (0.1, 1.0),
            "checkpoint_every": 500,
            "log_every": 50,
        }
    )
