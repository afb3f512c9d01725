r"""IMAS on DAVIS16: THE recipe; every other config states its differences from this.

Paper Sec. 4, Tables 1 and 3 (IMAS). All 50 sequences train without labels, the 20
validation sequences are scored.

    python -m imas_jax.main --config=configs/davis.py \
        --config.data.root=/data/DAVIS --config.model.weights=/data/densecl_r50.pth \
        --config.flow.estimator=raft --config.flow.weights=raft_things \
        --config.workdir=runs/davis

Expected: paper 77.3 J (frame mean) without, 77.7 with the semantic constraint, 79.8
with CRF post-processing. Wants one accelerator with 24 GB or more.

`--config=configs/davis.py:runlocal` shrinks network, crops and steps until the whole
protocol runs in minutes on two CPU cores; its numbers are not the paper's.

Comments say where a value is from: "paper", "RCF" (the authors' public code) or "ours".
"""

from ml_collections import ConfigDict

from imas_jax.configs import _small, _tools


def get_config(variant: str = "") -> ConfigDict:
    """Build the recipe; `variant` is "" or "runlocal"."""
    if variant not in ("", "runlocal"):
        raise ValueError(f"unknown variant {variant!r}; known: '' and 'runlocal'")
    config = ConfigDict()
    config.stage = "all"
    config.workdir = "runs/davis"
    config.restore = ""  # another run's workdir: its trained stages are used
    config.restore_until = "refine"  # last of them that is: discover | align | refine
    config.overwrite = False  # redo stages whose config changed; old ones are kept
    config.distributed = ""  # auto | HOST:PORT,COUNT,INDEX: several processes
    config.hung_after = 1800.0  # seconds; a process of several that hangs ends all
    config.seed = 0
    config.precision = "float32"  # or "bfloat16": network only; losses stay float32
    config.data = data()
    config.flow = flow()
    config.motion = motion()
    config.augment = augment()
    config.model = model()
    config.loss = loss()
    config.discover = discover()
    config.align = align()
    config.target = target()
    config.crf = crf()
    config.refine = refine()
    config.predict = predict()
    config.evaluate = evaluate()
    config.report = report()
    config.watch = watch()
    config.ablate = ablate()
    config.push = _tools.push()
    config.evidence = _tools.evidence()
    config.pretrain = _tools.pretrain()
    if variant == "runlocal":
        _small.runlocal(config)
    return config


def data() -> ConfigDict:
    """Where clips come from."""
    return ConfigDict(
        {
            "root": "",  # the folder that holds JPEGImages/, Annotations/, ImageSets/
            # davis | segtrackv2 | fbms59 | youtube_vos | folders | folder | video
            # | videos | images | auto (imas_jax/data/layouts.py)
            "layout": "davis",
            "resolution": "",  # DAVIS subfolder; "" takes the only or the 480p one
            "split": "trainval",  # image set to train on: all sequences (paper)
            "sequences": (),  # only these; () takes all of the split
            # (h, w) of all frames; (0, 0) the file's. -1 is chosen (stages/settle.py)
            "size": (0, 0),
            "cuts": "off",  # off | find: no pair of frames reaches across a scene cut
            "frames": 0,  # of each clip to train on, spread evenly; 0 all, -1 chosen
            "source": "memory",  # memory | device | tfrecord (docs/data.md)
            # Folder of decoded frames; "" TMPDIR's or the user's cache (docs/scale.md)
            "cache": "",  # off: no file, and each process holds its own
            "partial": False,  # accept a copy with sequences or frames missing
        }
    )


def flow() -> ConfigDict:
    """How optical flow is computed."""
    return ConfigDict(
        {
            # dis | raft (paper; wants flow.weights) | import (wants flow.source)
            "estimator": "dis",
            "source": "",  # folder of flow computed elsewhere (data/imported_flow.py)
            "weights": "",  # of RAFT: a file, or a name (python -m imas_jax.weights)
            "iterations": 20,  # RAFT refinements (RAFT's own evaluation default)
            "precision": "float32",  # or "bfloat16": RAFT's encoders and update
            # Of RAFT: volume (all pairs, fast) | on_demand (frames whose volume would
            # not fit) | auto (volume as long as it fits)
            "correlation": "auto",
            "gaps": (1,),  # pairs (t, t + gap); (-1,) chosen
            "size": 0,  # short side flow is computed at; 0 is the frame's own
            "root": "",  # where flow files live; "" is <workdir>/flow
            "export": "",  # also write: flo | color; "" nothing
            "background": "none",  # none (paper) | homography: subtract camera motion
        }
    )


def motion() -> ConfigDict:
    """Who says what moves on its own, before anything is learned."""
    return ConfigDict(
        {
            # otsu (the motion baseline: flow less homography, Otsu's threshold) |
            # network (ours, trained on rendered clips: configs/motion.py)
            "evidence": "otsu",
            "also": "",  # dis (ours): also of DIS's flow, beside another estimator's
            "crf": "",  # a preset that refines the network's evidence; "" is none
            # Pixels on the frame's border, over the root of its area, from which on a
            # part of the refined evidence goes beside a clear one; 0: none
            "border_contact": 0.0,
        }
    )


def augment() -> ConfigDict:
    """Augmentation, done on the device."""
    return ConfigDict(
        {
            "short_side": 400,  # pixels before the crop (RCF)
            "scale": (0.96, 1.0),  # uniform factor on short_side (RCF)
            "crop": (384, 384),  # (h, w) the network sees (paper)
            "flip": 0.5,  # probability; horizontal flow changes sign
            "photometric": True,  # mmsegmentation's distortion, same for both frames
            "scale_flow": False,  # True: flow values follow the resize (RCF: no)
            "fit_crop": False,  # True: turn or shrink a crop that is larger than frames
        }
    )


def model() -> ConfigDict:
    """The network."""
    return ConfigDict(
        {
            "name": "imas",  # imas | amd (another method, configs/amd.py)
            # resnet50 (paper) | resnet18 | unet (small clips) | vit_s16 | vit_s8
            # | vit_s14 | vit_s14_reg (width 384, stride of the patch: docs/features.md)
            "backbone": "resnet50",
            "width": 64,  # channels of the first stage
            "output_stride": 8,
            # Self-supervised weights (paper: DenseCL), a file or a name of
            # `python -m imas_jax.weights`; "": none
            "weights": "",
            "allow_supervised": False,  # True: take weights from human labels too
            # all (paper) | heads: the backbone stays as its weights have it; what it
            # sees is computed once, on disk; no crops, flips, colours (ours)
            "trained": "all",
            "averaged": False,  # take an authors' checkpoint's moving averages (_ema)
            "channels": 4,  # C, tuned by alignment (paper Fig. 5)
            "feature_merging": True,  # paper Sec. 3.2; False on SegTrackv2
            "head_width": 256,  # RCF
            "head_dilation": 6,  # RCF; 0: 1x1 convolutions, every pixel by itself
            "dropout": 0.1,  # whole channels before each head's last layer (RCF)
            # residual (paper) | none | scaling | affine | residual_affine (RCF on STv2)
            "pathway": "residual",
            "motion_width": 64,  # hidden units of phi_1, phi_2; 0 makes both identity
            "residual_bound": 10.0,  # lambda, pixels (paper)
            "residual_divisor": 10.0,  # d (RCF)
            "flow_clamp": 20.0,  # pixels, on the target flow too (RCF)
            # True: the first channel explains no motion, so that it is background in
            # every clip (ours: no; wants flow.background = homography)
            "still_background": False,
        }
    )


def loss() -> ConfigDict:
    """Losses of stage 1."""
    return ConfigDict(
        {
            "kind": "l1",  # l1 (paper) | robust (its Table 4) | l2 (configs/gwm.py)
            "symmetric": True,  # forward and backward flow (paper)
            "entropy": "off",  # off (paper) | rcf | intended
            "entropy_weight": 0.05,  # RCF; used unless entropy is off
            # Weight of the first channel's spread, so that it is the object (ours: 0;
            # RCF on STv2: 1)
            "compactness": 0.0,
            # amd only: sizes at which frames are compared, each half the last (AMD: 4)
            "scales": 1,
            "ssim": 0.85,  # amd only: share of SSIM in its photometric loss, rest L1
        }
    )


def discover() -> ConfigDict:
    """Stage 1: object discovery from motion."""
    return ConfigDict(
        {
            # Another run's workdir: its weights start this stage; "" none
            "init": "",
            "steps": 40_000,  # paper; -1 chosen
            "batch_size": 16,  # pairs over all devices (paper)
            "learning_rate": 1e-4,  # paper
            "min_learning_rate": 1e-6,  # RCF
            "power": 0.9,  # of the polynomial decay (RCF)
            "steps_per_decay": 216,  # RCF decays once an epoch: 3455 / 16
            "weight_decay": 1e-4,  # RCF, coupled with Adam; 1e-6 on STv2 and FBMS59
            "ema": 0.0,  # decay of averaged parameters; 0 is off (RCF 0.999, stage 2)
            "checkpoint_every": 1000,
            "log_every": 50,
            "motion_weight": 1.0,  # 0: no flow is read, frames seen alone (ours)
            "evidence_weight": 0.0,  # pull of the motion evidence (paper: none; ours)
        }
    )


def align() -> ConfigDict:
    """Which channel is the object, without annotations."""
    return ConfigDict(
        {
            # motion (measured best, benchmarks/results/alignment.md) | semantic
            # (equation 13, paper) | both: their mean | cut (RCF: normalised cut)
            "score": "motion",
            # Features of the semantic judge: auto (weights where given, else
            # superpixels) | weights (paper) | stage1 | palette | superpixels
            "features": "auto",
            "weights": "",  # of frozen features; "" takes model.weights
            "backbone": "resnet50",  # what that checkpoint is of; the paper's
            "judged": "first",  # frames of a sequence: first (paper) | all
            "largest": 1,  # channels that together may be the object (paper: 1)
            "threshold": 0.0,  # theta of equation 11; 0 takes the features' own value
            # Stage tune ranks instead of choosing: folders of masks of any method, or
            # the checkpoints of runs. Comma-separated, * is a wildcard.
            "masks": "",
            "sweep": "",
        }
    )


def target() -> ConfigDict:
    """Stage-2 targets."""
    return ConfigDict(
        {
            "crf": "authors_target",  # a preset of imas_jax/appearance/crf.py
            # between (paper): once, from stage 1's masks | online (as RCF's second
            # version): of every batch, from the masks of the averaged network
            "when": "between",
            "resolution": "mask",  # mask (paper): where the CRF runs | frame
            # Equation 12. Its features are align.features; auto wants align.weights.
            "semantic_constraint": False,
            # match: equation 12 (paper) | cut: the CRF of a mask whose normalised cut
            # was improved too (RCF, stage 2.2)
            "constrained_by": "match",
            "disagreement": 0.0,  # share of the frame; 0: a cut is never dropped
            "dilation": 3,  # 3 on DAVIS16, 7 on STv2 and FBMS59 (paper)
            "workers": 0,  # CRF threads (pydensecrf: processes); 0 is one a core
        }
    )


def crf() -> ConfigDict:
    """The CRF behind targets and final masks."""
    # lattice (ours: compiled, the same masks) | pydensecrf (the authors' library)
    return ConfigDict({"solver": "lattice"})


def refine() -> ConfigDict:
    """Stage 2: refinement by appearance."""
    config = discover()
    del config.evidence_weight
    config.update(
        {
            "steps": 200,  # paper
            "learning_rate": 1e-5,  # RCF
            "appearance_weight": 2.0,  # RCF
            "motion_weight": 0.1,  # RCF
            "positive_weight": 2.0,  # RCF
            "negative_weight": 1.0,  # RCF
            "checkpoint_every": 100,
            "log_every": 10,
        }
    )
    return config


def predict() -> ConfigDict:
    """How masks leave the network."""
    return ConfigDict(
        {
            "short_side": 392,  # 400 * 0.98 (RCF); 0 keeps the stored size
            "batch_size": 4,  # frames a forward pass; no influence on masks
            "flip": False,  # average with the mirrored frame's masks (ours: off)
            "binarize": "argmax",  # argmax (RCF, final) | threshold
            "threshold": 0.35,  # RCF, with binarize = "threshold"
            # Of masks; PNG is always written. Further ones: docs/formats.md
            "formats": ("png",),
            "evidence": 0.0,  # share of the motion evidence in final masks (ours)
            # Share of what neighbours say that a step along the flow leaves, where the
            # evidence has its share (ours, flow/steady.py)
            "steady": 0.0,
            "crf": "",  # post-processing preset; "" is none (paper's 77.7; 79.8 with)
            # IoU with the mask before it below which a frame has no CRF (ours)
            "crf_agreement": 0.0,
            "border_contact": 0.0,  # as motion's, of masks after the CRF (ours)
        }
    )


def evaluate() -> ConfigDict:
    """What is scored."""
    return ConfigDict(
        {
            "split": "val",  # image set to score; "" scores every annotated sequence
            "oracle": True,  # also score the channel annotations would pick
            # Score folders of masks of any method in place of the run's own: comma-
            # separated, * is a wildcard, the others are compared with the first.
            "masks": "",
            "encoding": "auto",  # of their pixels: auto | labels | binary | soft
            "label": 0,  # the object's number in label images; 0 unites all objects
            "threshold": 0.5,  # above it a soft mask is object
            "partial": False,  # score what is there where masks are missing
            "baseline": True,  # compute flow for the motion baseline, the first row
            "published": False,  # print all systems of the paper's Table 2 beside ours
        }
    )


def report() -> ConfigDict:
    """What is shown."""
    return ConfigDict({"frames_per_sequence": 8, "sequences": 12})


def watch() -> ConfigDict:
    """What is seen while training; none of it changes what is learned."""
    return ConfigDict(
        {
            "tensorboard": True,  # event files in <stage>/events
            "wandb": "",  # a project at Weights & Biases (pip install imas_jax[wandb])
            "trackio": "",  # a project of trackio, on this machine (imas_jax[trackio])
            "images_every": 1000,  # steps between pictures of some frames; 0 never
            # Steps between validation passes over annotated frames, if there are any;
            # 0 never: annotations are not read while training. J is logged as
            # "watched, never used".
            "jaccard_every": 0,
        }
    )


def ablate() -> ConfigDict:
    """Rows of the paper's Tables 3, 4 and 5 that stage ablate trains."""
    return ConfigDict(
        {
            "rows": "",  # names, comma-separated, or table-3 and so on; "" is all
            "seeds": (0, 1, 2),
            "crf": "authors_post",  # preset of the rows with post-processing (RCF)
            # True: every annotated sequence trains a network of its own (ours)
            "alone": False,
        }
    )
