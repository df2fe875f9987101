"""The defaults of every config key: EP1's stage 0 as the release runs it. Sizes are (width, height).

Keys are ADVENT's where it has them. A deviation of the release that users can choose is a key, explained here.
"""

DEFAULTS_YAML = """
SOURCE: SYNTHIA                # spec of the labelled domain: a name under configs/datasets, or a path
TARGET: Cityscapes             # spec of the unlabelled domain
GEOMETRY_TARGET: null          # how its images meet the input size: stretch | pad; null: as its spec says.
                               # A loaded config holds it: predictions depend on it, and the spec may not be at hand
NUM_CLASSES: 16
CLASSES: null                  # class set under configs/classes, or a path; null: the one that SOURCE or TARGET
                               # brings, else by NUM_CLASSES. A loaded config holds the whole set: it travels
DATA_ROOT: data                # data sets lie under it; relative to the working directory
DATA_DIRECTORY_SOURCE: null    # folder of the source, relative to DATA_ROOT; null: the spec's own
DATA_DIRECTORY_TARGET: null
DATA_LIST_SOURCE: null         # list file (also relative to this project); null: the folder is scanned
DATA_LIST_TARGET: null
DATA_CACHE: cache              # decoded images that scripts/prepare.py left, under DATA_ROOT; null: not used
DATA_CHECK: 16                 # so many images of each data set are examined before a stage begins; 0: none
NUM_WORKERS: 4                 # of each stream; they hold (NUM_WORKERS + 1) x max(batch size, 4) images in /dev/shm,
                               # of which Docker gives 64 MiB: EP1 needs 142 there, 57 with 1 worker, none with 0
DEVICE: auto                   # auto | cpu | cuda | cuda:N | mps
EXP_ROOT: experiments
EXP_NAME: ep1                  # folder of the protocol under EXP_ROOT
EXP_SUFFIX: ''                 # set apart: EXP_NAME_SUFFIX
STAGE:
  NAME: daf                    # folder of this stage
  AFTER: null                  # folder of the stage that it starts from
  SCRIPT_AFTER: null           # which script and config make that stage: for the hint when it is missing
  CONFIG_AFTER: null
  RANKING: null                # folder of the ranking (stage 2b), beside this stage's
  RANKING_FROM: null           # or a path: splits and pseudo labels from elsewhere (the release's, IntraDA's)
  CONFIG_RANKING: null
  CHECK_ORIGIN: true           # refuse splits and pseudo labels made from another checkpoint or other images
MODEL:
  NAME: DeepLabv2_depth        # DeepLabv2_depth (DAF) | DeepLabv2_depth_DADA | DeepLabv2 (ADVENT)
  MULTI_LEVEL: false           # auxiliary classifier: AdvEnt and MinEnt on DeepLabv2
  DILATIONS: [6, 12, 18, 24]   # which of the classifier's convolutions are summed. [6, 12]: AdaptSegNet, whose
                               # network has ADVENT's names and shapes but returns inside its loop
  ENCODER: resnet101           # the release's ResNet | timm:NAME
  LAYERS: [3, 4, 23, 3]        # blocks of the ResNet's four stages
  WIDTH: 64                    # channels of the ResNet's stem; the rest scales with it
  STRIDE_IN: conv1             # of a ResNet block: the first 1x1 (release) | conv2: the 3x3, as torchvision's weights
  ATTENTION: true              # channel attention before the depth head's branches; false: an ablation
  DEPTH_SIZE: [304, 228]       # the depth head's output is resized to this first, as released; null: its own size
  INIT: release                # release: N(0, 0.01) everywhere | he: for training from scratch
  OUTPUT_STRIDE: 8             # timm encoders: 16 and 32 are several times faster than the release's 8, and coarser
  FEATURE_SCALE: 1.0           # timm encoders: factor of the last map. Linear bottlenecks (EfficientNet's) are several
                               # times larger than the ResNet's rectified maps, and the heads' rate overshoots on them
  BN_AFFINE: auto              # scale and shift of the encoder's batch norms: frozen (release) | trainable |
                               # auto: frozen for the ResNet, trainable for timm
  ENCODER_WEIGHTS: null        # timm encoders: a local file | timm (its own download) | efficientnet-lite0
TRAIN:
  DA_METHOD: DAF               # DAF | DADA | AdvEnt | MinEnt | SourceOnly
  SET_SOURCE: all
  SET_TARGET: train
  BATCH_SIZE_SOURCE: 1
  BATCH_SIZE_TARGET: 1
  ACCUMULATE: 1                # so many batches of each domain make one iteration, one after another: a batch of
                               # BATCH_SIZE x ACCUMULATE x processes (torchrun) in the memory of BATCH_SIZE. The
                               # learning rate stays as it is configured
  SYNC_BN: false               # true: batch norm takes its statistics over all processes (CUDA); false: each process
                               # over its own batch, as the release does
  INPUT_SIZE_SOURCE: [1280, 760]
  INPUT_SIZE_TARGET: [1024, 512]
  IMG_MEAN: [104.00698793, 116.66876762, 122.67891434]  # BGR
  RESTORE_FROM: null           # stage 0: starting weights, a file or torchvision (fetches its ImageNet ResNet-101);
                               # later stages: the checkpoint to start from
  LEARNING_RATE: 2.5e-4        # of the backbone
  HEAD_RATE: 10.0              # heads get so many times that
  MOMENTUM: 0.9
  WEIGHT_DECAY: 5.0e-4
  POWER: 0.9                   # of the poly schedule
  LEARNING_RATE_D: 1.0e-4
  BACKBONE_UPDATES: release    # release: each backbone weight is updated once per enclosing module | once
  LAMBDA_SEG_MAIN: 1.0
  LAMBDA_SEG_AUX: 0.1
  LAMBDA_DEPTH_MAIN: 0.001
  LAMBDA_ADV_MAIN: 0.001
  LAMBDA_ADV_AUX: 0.0002
  LAMBDA_ENT_MAIN: 0.001
  LAMBDA_ENT_AUX: 0.0002
  DEPTH_POWER: [1, 1]          # of the depth in the source's and the target's map; the release: [1, 2]
  MAX_ITERS: 90000             # length of the schedule
  EARLY_STOP: 90000            # where training ends
  SAVE_PRED_EVERY: 2000        # snapshots
  SAVE_LAST: false             # true: a snapshot after the very last iteration too; the release saves multiples only
  KEEP: 0                      # how many snapshots stay; 0: all
  LOG_EVERY: 100               # rows of metrics.jsonl are means over so many iterations
  EVAL_EVERY: 0                # score the target's labelled set so often; 0: never
  RANDOM_SEED: 1234
  RANDOM_TRAIN: false          # true: draw the seed
  AMP: 'off'                   # off | bf16 | fp16 (loss scaling; GPUs but not MPS): mixed precision, for training and
                               # evaluation; losses, maps, batch-norm statistics and the depth stay in float32
  TF32: default                # NVIDIA GPUs from Ampere on, float32 (AMP: off). default: PyTorch's own, convolutions in
                               # TF32 (10 bits of mantissa), matrix products in float32; off: float32; on: TF32
  COMPILE: false               # true: torch.compile the network, for training and evaluation; minutes at the start
  CHECKPOINT_ACTIVATIONS: false  # true: keep less of the encoder for the backward pass and compute it again: less
                               # memory, more time, the same gradients
  TENSORBOARD: false
  PICTURES_EVERY: 500          # TensorBoard gets pictures of both domains so often; 0: never. Changes no result
  DETERMINISTIC: false         # true: the same bits every time where the device allows it; the CPU's are anyway
  SKIP_NONFINITE: 0            # so many iterations whose losses or gradients are not finite are skipped and counted;
                               # one more ends the run
ISL:
  THRESHOLD: 0.9               # least probability of a pseudo label
  CLASS_SHARE: 0.0             # above 0: every class keeps at least this share of its pixels, the most certain ones:
                               # its threshold is lowered so far. One threshold for all drowns the rare classes
  REFRESH_EVERY: 10000         # pseudo labels are remade after so many iterations
RANK:
  MAP: depth                   # what is averaged: self-information x depth (the paper) | entropy: alone (IntraDA) |
                               # random: no ranking at all, a control
  NORMALIZE: 'false'           # by rare classes: false | true | release (its wrong class ids)
  LAMBDA1: 0.66                # share of the easy half
TEST:
  MODE: last                   # last snapshot | best of all (an oracle's choice) | single: RESTORE_FROM or ENSEMBLE
  SELECT: oracle               # with MODE best; entropy: also the choice without labels, by the least mean entropy
  SELECT_IMAGES: 200           # over so many target training images; 0: all
  ENSEMBLE: []                 # with MODE single: these files together, their logits summed
  WEIGHTS: []                  # of the ensemble's files; without them 1 each
  FLIP: false                  # true: average with the mirrored image; the paper's numbers do not
  SCALES: [1.0]                # average over these scales of the input; the paper's numbers use 1 alone
  SAVE_PREDS: null             # folder for predictions as label ids and colours; of MODE best, the best snapshot's
  SET_TARGET: val
  BATCH_SIZE_TARGET: 1
  INPUT_SIZE_TARGET: [1024, 512]
  RESTORE_FROM: null
  WAIT_MODEL: false            # wait until the training stage is finished
PIPELINE:
  STAGES: []                   # [{name: daf, script: train.py, cfg: dg}, ...]
"""

NULLABLE = {
    "CLASSES", "DATA_CACHE", "DATA_DIRECTORY_SOURCE", "DATA_DIRECTORY_TARGET", "DATA_LIST_SOURCE", "DATA_LIST_TARGET",
    "STAGE.AFTER", "STAGE.SCRIPT_AFTER", "STAGE.CONFIG_AFTER", "STAGE.RANKING", "STAGE.RANKING_FROM",
    "STAGE.CONFIG_RANKING", "MODEL.DEPTH_SIZE", "MODEL.ENCODER_WEIGHTS", "TRAIN.RESTORE_FROM", "TEST.RESTORE_FROM",
    "TEST.SAVE_PREDS", "GEOMETRY_TARGET",
}  # fmt: skip

# What may be a path: `~` at its beginning is the home folder. In a list every entry is one.
PATHS = {
    "SOURCE", "TARGET", "CLASSES", "DATA_ROOT", "DATA_DIRECTORY_SOURCE", "DATA_DIRECTORY_TARGET", "DATA_LIST_SOURCE",
    "DATA_LIST_TARGET", "DATA_CACHE", "EXP_ROOT", "STAGE.RANKING_FROM", "MODEL.ENCODER_WEIGHTS", "TRAIN.RESTORE_FROM",
    "TEST.ENSEMBLE", "TEST.SAVE_PREDS", "TEST.RESTORE_FROM",
}  # fmt: skip

# Names of folders under the experiment's: they never lead elsewhere.
FOLDERS = ("EXP_NAME", "EXP_SUFFIX", "STAGE.NAME", "STAGE.AFTER", "STAGE.RANKING")

CHOICES = {
    "GEOMETRY_TARGET": ("stretch", "pad"),
    "MODEL.INIT": ("release", "he"),
    "MODEL.STRIDE_IN": ("conv1", "conv2"),
    "MODEL.BN_AFFINE": ("auto", "frozen", "trainable"),
    "TRAIN.BACKBONE_UPDATES": ("release", "once"),
    "TRAIN.AMP": ("off", "bf16", "fp16"),
    "TRAIN.TF32": ("default", "off", "on"),
    "RANK.MAP": ("depth", "entropy", "random"),
    "RANK.NORMALIZE": ("false", "true", "release"),
    "TEST.MODE": ("last", "best", "single"),
    "TEST.SELECT": ("oracle", "entropy"),
}

SIZES = {
    "MODEL.DEPTH_SIZE", "TRAIN.INPUT_SIZE_SOURCE", "TRAIN.INPUT_SIZE_TARGET", "TEST.INPUT_SIZE_TARGET",
}  # fmt: skip

# Lists of any length, and what they hold.
LISTS: dict[str, type] = {"MODEL.DILATIONS": int, "TEST.ENSEMBLE": str, "TEST.WEIGHTS": float, "TEST.SCALES": float}

LENGTHS = {"MODEL.LAYERS": 4, "TRAIN.IMG_MEAN": 3, "TRAIN.DEPTH_POWER": 2, **dict.fromkeys(SIZES, 2)}

# Least values; for floats the bound itself is excluded where `positive` would be wrong at it.
AT_LEAST = {
    "NUM_CLASSES": 2, "NUM_WORKERS": 0, "DATA_CHECK": 0, "MODEL.WIDTH": 4, "MODEL.OUTPUT_STRIDE": 8,
    "TRAIN.BATCH_SIZE_SOURCE": 1, "TRAIN.BATCH_SIZE_TARGET": 1, "TRAIN.ACCUMULATE": 1,
    "MODEL.FEATURE_SCALE": 0.0, "TRAIN.LEARNING_RATE": 0.0, "TRAIN.HEAD_RATE": 0.0, "TRAIN.MOMENTUM": 0.0,
    "TRAIN.WEIGHT_DECAY": 0.0, "TRAIN.POWER": 0.0,
    "TRAIN.LEARNING_RATE_D": 0.0, "TRAIN.MAX_ITERS": 1, "TRAIN.EARLY_STOP": 1, "TRAIN.SAVE_PRED_EVERY": 1,
    "TRAIN.KEEP": 0, "TRAIN.PICTURES_EVERY": 0, "TRAIN.LOG_EVERY": 1, "TRAIN.EVAL_EVERY": 0,
    "TRAIN.SKIP_NONFINITE": 0, "TRAIN.RANDOM_SEED": 0, "ISL.REFRESH_EVERY": 1,
    "ISL.THRESHOLD": 0.0, "ISL.CLASS_SHARE": 0.0, "RANK.LAMBDA1": 0.0, "TEST.BATCH_SIZE_TARGET": 1,
    "TEST.SELECT_IMAGES": 0,
}  # fmt: skip
AT_MOST = {
    "MODEL.OUTPUT_STRIDE": 32, "ISL.THRESHOLD": 1.0, "ISL.CLASS_SHARE": 1.0, "RANK.LAMBDA1": 1.0, "TRAIN.MOMENTUM": 1.0,
}  # fmt: skip

# What a training result does not depend on: left out of a config's digest. A dot at the end means a whole section.
WITHOUT_EFFECT = (
    "DEVICE", "NUM_WORKERS", "DATA_ROOT", "DATA_CACHE", "DATA_CHECK", "CLASSES.colors",
    "EXP_ROOT", "EXP_NAME", "EXP_SUFFIX", "STAGE.SCRIPT_AFTER",
    "STAGE.CONFIG_AFTER", "STAGE.CONFIG_RANKING", "TRAIN.KEEP", "TRAIN.TENSORBOARD", "TRAIN.PICTURES_EVERY",
    "TRAIN.RANDOM_TRAIN",
    "TRAIN.DETERMINISTIC", "TRAIN.SKIP_NONFINITE", "TRAIN.CHECKPOINT_ACTIVATIONS",
    "STAGE.CHECK_ORIGIN", "TEST.", "PIPELINE.",
)  # fmt: skip

# Keys of later versions -> the values that say what earlier versions did. With one of these a key is left out of the
# digest, so that the digest of an earlier run stays the same.
SINCE: dict[str, tuple[object, ...]] = {
    "GEOMETRY_TARGET": (None, "stretch"),
    "MODEL.DILATIONS": ([6, 12, 18, 24],),
    "TRAIN.TF32": ("default",),
}
