"""Every config key: type, default, bounds and one line of text. Sizes are (width, height).

The defaults are stage 0 of EP1 as the authors' code runs it. Keys are ADVENT's where it has them. Each deviation of the
authors' code that a user can choose is a key, explained here. `docs/config.md` is generated from this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic.config import JsonDict

from advent.config.value_types import (
    FolderName,
    Geometry,
    InputSize,
    Number,
    PathText,
    Side,
    Size,
    Text,
    as_switch,
    boolean_word,
    checked_text,
    folder_name,
    method_name,
)


def key(default: Any, text: str, *, affects_training: bool = True, earlier: Sequence[Any] = (), **bounds: Any) -> Any:
    """A config key. `affects_training=False` leaves it out of the digest that decides whether a run may resume.

    `earlier`: the values that mean what versions without this key did. They are left out of the digest, too, so that
    digests of earlier runs hold.
    """
    extra: JsonDict = {"affects_training": affects_training, "earlier": list(earlier)}
    return Field(default=default, description=" ".join(text.split()), json_schema_extra=extra, **bounds)


class Section(BaseModel):
    """A section of the config: unknown keys are refused, and values are checked when they are assigned, too."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_assignment=True)


class ClassSetConfig(Section):
    """A whole class set, as a loaded config holds it."""

    name: str
    names: list[str]
    colors: list[list[int]]
    rare: list[str]
    subset: dict[str, list[str]]


class StageConfig(Section):
    """One stage of a protocol: its folder, and the stages that it builds on."""

    NAME: FolderName = key("daf", "folder of this stage")
    AFTER: FolderName | None = key(
        None, "folder of the stage whose last checkpoint this one starts from (in a protocol: the section before)"
    )
    RANKING: FolderName | None = key(None, "folder of the ranking that stage 2b uses, in the same experiment")
    RANKING_FROM: PathText | None = key(
        None, "or a path: splits and pseudo labels from elsewhere (the authors' code, IntraDA)"
    )
    CHECK_PROVENANCE: bool = key(
        True, "refuse splits and pseudo labels made from another checkpoint or other images", affects_training=False
    )
    PROTOCOL: Text | None = key(
        None,
        "the protocol file and section that this config was read from (set when it is loaded)",
        affects_training=False,
    )


class ModelConfig(Section):
    """The network."""

    NAME: Text = key("DeepLabv2_depth", "DeepLabv2_depth (DAF), DeepLabv2_depth_DADA or DeepLabv2 (ADVENT)")
    MULTI_LEVEL: bool = key(False, "auxiliary classifier on layer 3 (AdvEnt and MinEnt on DeepLabv2)")
    ENCODER: Text = key(
        "resnet101",
        """resnet101 (the authors' ResNet), or timm:NAME: any backbone with four maps, and plain ViTs (DINOv2, DINOv3,
        EVA-02) with a feature pyramid""",
    )
    LAYERS: Annotated[list[Side], Field(min_length=4, max_length=4)] = key(
        [3, 4, 23, 3], "blocks of the ResNet's four stages"
    )
    WIDTH: int = key(64, "channels of the ResNet's stem; the other layers scale with it", ge=4)
    DILATIONS: list[int] = key(
        [6, 12, 18, 24],
        """dilations of the classifier's convolutions that are summed. [6, 12]: AdaptSegNet, whose network has ADVENT's
        names and shapes but returns inside its loop""",
        earlier=[[6, 12, 18, 24]],
    )
    HEAD: Literal["aspp", "fusion"] = key(
        "aspp",
        """aspp: the dilated classifier of the authors' code on the last map; fusion: DAFormer's head, which reads all
        four maps and predicts at the first map's stride (DeepLabv2 and DeepLabv2_depth)""",
        earlier=["aspp"],
    )
    HEAD_WIDTH: Annotated[list[Side], Field(min_length=2, max_length=2)] = key(
        [256, 256],
        "channels of the fusion head: of each map's embedding, of the fused features; small runs: [64, 128]",
        earlier=[[256, 256]],
    )
    HEAD_DILATIONS: Annotated[list[Side], Field(min_length=1)] = key(
        [1, 6, 12, 18],
        "dilations of the fusion head's branches: 1 is a 1x1 convolution, the others are depthwise separable",
        earlier=[[1, 6, 12, 18]],
    )
    HEAD_KERNEL: Literal[1, 3] = key(
        3,
        "kernel of the convolution that joins these branches: 3 (published), or 1, which takes an eighth of its time",
        earlier=[3],
    )
    DROPOUT: Number = key(
        0.1,
        "share of the fused channels that the fusion head drops before its classifier",
        ge=0.0,
        le=0.9,
        earlier=[0.1],
    )
    STRIDE_IN: Literal["conv1", "conv2"] = key(
        "conv1", "stride of a ResNet block in its first 1x1 convolution (the authors' code) or its 3x3 (torchvision)"
    )
    ATTENTION: bool = key(True, "channel attention before the depth head's branches; false: an ablation")
    DEPTH_SIZE: Size | None = key(
        [304, 228], "size that the depth head's output is resized to first (the authors' code); null: its own size"
    )
    DEPTH_OUTPUT: Literal["linear", "log"] = key(
        "linear",
        """output of DeepLabv2_depth's depth head: linear is unconstrained (the authors' code); log is positive,
        65536 / 8001 * exp(softplus(r)), at most 65536: the inverse depth of at most 80 m""",
        earlier=["linear"],
    )
    INIT: Literal["release", "he"] = key(
        "release",
        """weights of a new network: release draws from N(0, 0.01); he is for training from scratch. The fusion head is
        always he""",
    )
    OUTPUT_STRIDE: int = key(
        8, "of timm encoders; 16 and 32 are several times faster than the 8 of the authors' code", ge=8, le=32
    )
    FEATURE_SCALE: Number = key(
        1.0,
        """factor of a timm encoder's last map. Linear bottlenecks (EfficientNet) give several times larger values than
        the ResNet's rectified maps, and the heads' learning rate is too high for them""",
        ge=0.0,
    )
    BN_AFFINE: Literal["auto", "frozen", "trainable"] = key(
        "auto",
        """scale and shift of the encoder's batch norms: frozen (the authors' code), trainable, or auto (frozen for the
        ResNet, trainable for timm)""",
    )
    ENCODER_WEIGHTS: PathText | None = key(
        None, "weights of a timm encoder: a local file, timm (its download) or efficientnet-lite0"
    )


class Precision(NamedTuple):
    """The number format that a stage computes in (`off` is float32), and why."""

    format: Literal["off", "bf16", "fp16"]
    reason: str


class TrainConfig(Section):
    """Training."""

    DA_METHOD: Annotated[Text, AfterValidator(method_name)] = key(
        "DAF", "DAF, DADA, AdvEnt, MinEnt, SourceOnly or SelfTraining"
    )
    SET_SOURCE: PathText = key("all", "split of the source")
    SET_TARGET: Text = key("train", "split of the target")
    BATCH_SIZE_SOURCE: int = key(1, "labelled images of a batch", ge=1)
    BATCH_SIZE_TARGET: int = key(1, "unlabelled images of a batch", ge=1)
    ACCUMULATE: int = key(
        1,
        """batches of each domain that make one iteration: the batch size is BATCH_SIZE x ACCUMULATE x processes in the
        memory of BATCH_SIZE. The learning rate is not scaled""",
        ge=1,
    )
    SYNC_BN: bool = key(
        False, "batch-norm statistics over all processes (CUDA); false: of each process (the authors' code)"
    )
    INPUT_SIZE_SOURCE: InputSize = key([1280, 760], "size of the source's images")
    INPUT_SIZE_TARGET: InputSize = key([1024, 512], "size of the target's images")
    IMG_MEAN: Annotated[list[Number], Field(min_length=3, max_length=3)] = key(
        [104.00698793, 116.66876762, 122.67891434], "mean that is subtracted from 0..255, in the order BGR"
    )
    RESTORE_FROM: PathText | None = key(
        None,
        """stage 0: initial weights, a file or torchvision (downloads its ImageNet ResNet-101). Later stages: the
        checkpoint to start from""",
    )
    OPTIMIZER: Literal["sgd", "adamw"] = key(
        "sgd",
        """optimizer of the network. adamw: betas 0.9 and 0.999, no weight decay of norms, biases and position
        embeddings; needs BACKBONE_UPDATES: once""",
        earlier=["sgd"],
    )
    RESTORE_BN: Literal["checkpoint", "target"] = key(
        "checkpoint",
        """batch-norm statistics of the network that ISL, the ranking and IDA start from. target: re-estimated on the
        target's training images first, as scripts/reestimate_bn.py does, without labels""",
        earlier=["checkpoint"],
    )
    STATISTICS_IMAGES: int = key(
        0, "number of evenly spaced images that RESTORE_BN=target reads; 0: all", ge=0, earlier=[0]
    )
    PREDICT_CROP: InputSize | None = key(
        None,
        """size of the sliding crops of ISL's pseudo labels and of the ranking, in pixels of INPUT_SIZE_TARGET; null: an
        image is predicted at once. TEST.CROP is that of scoring""",
        earlier=[None],
    )
    PREDICT_STRIDE: Size | None = key(
        None, "step of PREDICT_CROP, at most its size; null: two thirds of it", earlier=[None]
    )
    LEARNING_RATE: Number = key(2.5e-4, "of the backbone", ge=0.0)
    HEAD_RATE: Number = key(10.0, "factor of the heads' learning rate", ge=0.0)
    LAYER_DECAY: Number = key(
        1.0,
        """factor of the learning rate from each block of a timm encoder to the block before it; the stem has the lowest
        rate. For encoders with blocks in order: plain ViTs, ConvNeXt, Swin, PVT, EfficientNet""",
        ge=0.0,
        le=1.0,
        earlier=[1.0],
    )
    MOMENTUM: Number = key(0.9, "of SGD", ge=0.0, le=1.0)
    WEIGHT_DECAY: Number = key(5.0e-4, "of the network's optimizer; usual with adamw: 0.01", ge=0.0)
    POWER: Number = key(0.9, "of the poly schedule; 1: linear", ge=0.0)
    WARMUP: int = key(
        0, "iterations over which the network's learning rate rises linearly, on top of the schedule", ge=0, earlier=[0]
    )
    LEARNING_RATE_D: Number = key(1.0e-4, "of the discriminator (Adam)", ge=0.0)
    SPECTRAL_NORM_D: bool = key(
        False, "divide every weight of the discriminator by its largest singular value", earlier=[False]
    )
    LAMBDA_R1: Number = key(
        0.0,
        """weight of the discriminator's gradient penalty on source maps (R1): half the squared norm of the gradient of
        an image's mean domain logit. 0: none, as published""",
        ge=0.0,
        earlier=[0.0],
    )
    BACKBONE_UPDATES: Literal["release", "once"] = key(
        "release",
        "release: each backbone weight is updated once per enclosing module, as in the authors' code; once: plain SGD",
    )
    LAMBDA_SEG_MAIN: Number = key(1.0, "weight of the cross entropy")
    LAMBDA_SEG_AUX: Number = key(0.1, "weight of the auxiliary classifier's cross entropy")
    LAMBDA_DEPTH_MAIN: Number = key(0.001, "weight of the depth loss")
    DEPTH_LOSS: Literal["berhu", "log_l1"] = key(
        "berhu",
        """berhu: reverse Huber loss of the inverse depth (the authors' code), values in the hundreds; log_l1: smooth L1
        loss (beta 0.1) of its logarithm, values around 1, needs MODEL.DEPTH_OUTPUT: log""",
        earlier=["berhu"],
    )
    LAMBDA_ADV_MAIN: Number = key(0.001, "weight of the adversarial loss")
    LAMBDA_ADV_AUX: Number = key(0.0002, "weight of the auxiliary classifier's adversarial loss")
    LAMBDA_ENT_MAIN: Number = key(0.001, "weight of the entropy loss (MinEnt)")
    LAMBDA_ENT_AUX: Number = key(0.0002, "weight of the auxiliary classifier's entropy loss (MinEnt)")
    DEPTH_POWER: Annotated[list[Annotated[int, Field(ge=0, lt=2**16)]], Field(min_length=2, max_length=2)] = key(
        [1, 1], "power of the depth in the source's and the target's map; the authors' code: [1, 2]"
    )
    RARE_CLASS_TEMPERATURE: Number = key(
        0.0,
        """above 0: rare class sampling of the source. A class is drawn, by softmax((1 - its share of the labelled
        pixels) / RARE_CLASS_TEMPERATURE), then an image that shows it. DAFormer: 0.01. Not for pseudo labels: ISL and
        IDA ignore it""",
        ge=0.0,
        earlier=[0.0],
    )
    RARE_CLASS_SHARE: Number = key(
        0.003,
        """share of an image that a drawn class must exceed (where no image has it, any pixel). A crop must exceed twice
        the share, or is the best of ten""",
        ge=0.0,
        le=1.0,
        earlier=[0.003],
    )
    MAX_ITERS: int = key(90000, "length of the learning-rate schedule", ge=1)
    EARLY_STOP: int = key(90000, "iteration at which training ends", ge=1)
    SAVE_PRED_EVERY: int = key(2000, "iterations between checkpoints", ge=1)
    SAVE_LAST: bool = key(
        False, "a checkpoint after the very last iteration, too; the authors' code saves multiples only"
    )
    KEEP: int = key(0, "number of checkpoints that are kept; 0: all", ge=0, affects_training=False)
    LOG_EVERY: int = key(100, "iterations that a row of metrics.jsonl averages", ge=1)
    EVAL_EVERY: int = key(0, "iterations between evaluations on the target's labelled set; 0: none", ge=0)
    RANDOM_SEED: int = key(1234, "seed of all random numbers", ge=0)
    RANDOM_TRAIN: bool = key(False, "draw the seed; the drawn one is recorded", affects_training=False)
    AMP: Annotated[Literal["off", "bf16", "fp16", "auto"], BeforeValidator(as_switch)] = key(
        "off",
        """mixed precision in training and evaluation; fp16 scales the loss (GPUs but not MPS). Losses, maps, batch-norm
        statistics and the depth stay in float32. auto: what is faster on this machine (docs/training.md)""",
    )
    TF32: Annotated[Literal["default", "off", "on"], BeforeValidator(as_switch)] = key(
        "default",
        """float32 on NVIDIA GPUs from Ampere on (AMP off). default: PyTorch's own, convolutions in TF32 (10 bits of
        mantissa), matrix products in float32; off: both in float32; on: both in TF32""",
        earlier=["default"],
    )
    COMPILE: bool = key(False, "torch.compile the network in training and evaluation; takes minutes at the start")
    CHECKPOINT_ACTIVATIONS: bool = key(
        False,
        "recompute the encoder's activations in the backward pass: less memory, more time, the same gradients",
        affects_training=False,
    )
    TENSORBOARD: bool = key(False, "write TensorBoard files", affects_training=False)
    PICTURES_EVERY: int = key(
        500, "iterations between TensorBoard images of both domains; 0: none", ge=0, affects_training=False
    )
    DETERMINISTIC: bool = key(
        False,
        "ask PyTorch for deterministic kernels; on the CPU results are deterministic anyway",
        affects_training=False,
    )
    SKIP_NONFINITE: int = key(
        0,
        "steps with non-finite losses or gradients that are skipped before the run ends",
        ge=0,
        affects_training=False,
    )
    _precision: Precision | None = PrivateAttr(default=None)

    @property
    def precision(self) -> Precision:
        """The number format of the stage: AMP, or for `auto` what `settle_precision` chose once it had the network.

        It is no part of the config: the digest is the same on every machine.
        """
        if self.AMP != "auto":
            return Precision(self.AMP, "TRAIN.AMP")
        assert self._precision is not None, "TRAIN.AMP: auto is not decided yet: call settle_precision first"
        return self._precision

    @precision.setter
    def precision(self, chosen: Precision) -> None:
        self._precision = chosen


class AugmentConfig(Section):
    """Augmentation of training images, with their labels, pseudo labels and depth.

    Off by default: the authors' code has none.
    """

    FLIP: bool = key(False, "mirror half of the images horizontally", earlier=[False])
    SCALE: Annotated[list[Number], Field(min_length=2, max_length=2)] = key(
        [1.0, 1.0],
        """smallest and largest zoom, drawn log-uniformly: a region of CROP / zoom is cut from the image at its input
        size and resized to CROP. The region stays inside the image, so the zoom is at least CROP / INPUT_SIZE""",
        earlier=[[1.0, 1.0]],
    )
    CROP: InputSize | None = key(
        None, "size of the crops, in both domains; null: the domain's input size", earlier=[None]
    )
    JITTER: Number = key(
        0.0,
        """colour jitter of labelled images with probability 0.8: largest change of brightness, contrast and saturation
        (factors) and of the hue (share of a full turn)""",
        ge=0.0,
        le=0.5,
        earlier=[0.0],
    )
    BLUR: bool = key(False, "blur half of the labelled images by a Gaussian of 0.15 to 1.15 pixels", earlier=[False])
    DOMAINS: Literal["both", "source"] = key(
        "both",
        "domains whose images are mirrored, zoomed and cropped; JITTER and BLUR change labelled images only",
        earlier=["both"],
    )


class IslConfig(Section):
    """Stage 1, iterative self-learning."""

    THRESHOLD: Number = key(0.9, "lowest probability of a pseudo label", ge=0.0, le=1.0)
    CLASS_SHARE: Number = key(
        0.0,
        """above 0: every class keeps at least this share of its pixels, the most confident ones; its threshold is
        lowered for that. A single threshold removes rare classes""",
        ge=0.0,
        le=1.0,
    )
    REFRESH_EVERY: int = key(10000, "iterations between updates of the pseudo labels", ge=1)
    PSEUDO_DEPTH: bool = key(
        False,
        """also write the depth that the network predicts, and train on it with the depth loss. Published: no depth
        loss; the predicted depth then changes with the shared features""",
        earlier=[False],
    )


class RankConfig(Section):
    """Stage 2a, ranking of the target."""

    MAP: Literal["depth", "distance", "entropy", "random"] = key(
        "depth",
        """map whose mean is the score. depth: self-information x inverse depth (the paper), so near pixels count most;
        distance: self-information x distance over the image's mean distance (ours); entropy: self-information alone
        (IntraDA); random: a control without a ranking""",
    )
    NORMALIZE: Annotated[Literal["false", "true", "release"], BeforeValidator(boolean_word)] = key(
        "false", "normalise by rare classes; release counts the wrong class ids of the authors' code"
    )
    LAMBDA1: Number = key(0.66, "share of the target that becomes the easy half", ge=0.0, le=1.0)
    THRESHOLD: Number = key(
        0.0, "lowest probability of a pseudo label of IDA; 0: every pixel (published)", ge=0.0, le=1.0, earlier=[0.0]
    )
    CLASS_SHARE: Number = key(0.0, "as ISL.CLASS_SHARE, for RANK.THRESHOLD", ge=0.0, le=1.0, earlier=[0.0])
    PSEUDO_DEPTH: bool = key(False, "as ISL.PSEUDO_DEPTH, for the labels of IDA", earlier=[False])


class SelfTrainingConfig(Section):
    """Self-training (TRAIN.DA_METHOD: SelfTraining): a student learns from the pseudo labels of its moving average."""

    START: int = key(0, "iteration of the first pseudo labels; before it the source alone trains", ge=0, earlier=[0])
    ALPHA: Number = key(
        0.999,
        "weight of the teacher's past: teacher = a teacher + (1 - a) student, a = min(1 - 1 / (t + 1), ALPHA)",
        ge=0.0,
        le=1.0,
        earlier=[0.999],
    )
    THRESHOLD: Number = key(
        0.968, "probability from which a pseudo label is confident", ge=0.0, le=1.0, earlier=[0.968]
    )
    CLASS_SHARE: Number = key(
        0.0,
        """above 0: at least this share of each class's pixels is confident, the most probable ones: its threshold is
        lowered for that, by a running histogram of the teacher's probabilities (as ISL.CLASS_SHARE)""",
        ge=0.0,
        le=1.0,
        earlier=[0.0],
    )
    WEIGHT: Literal["share", "confidence", "class"] = key(
        "share",
        """weight of a pseudo label. share: the image's share of confident pixels, for all its pixels (DACS);
        confidence: 1 for confident pixels, else 0; class: the share of confident pixels among the image's pixels of
        that class""",
        earlier=["share"],
    )
    TEACHER_STATISTICS: Literal["batch", "target"] = key(
        "batch",
        """batch norms of the teacher. batch: the target batch's own statistics (as published); target: running
        statistics of the target alone, moved by a pass without gradient over the target batch in every iteration""",
        earlier=["batch"],
    )
    STATISTICS_PASSES: int = key(
        40, "passes that form these running statistics before the first pseudo labels", ge=1, earlier=[40]
    )
    STATISTICS_MOMENTUM: Number = key(0.05, "of these running statistics", ge=0.0, le=1.0, earlier=[0.05])
    MIX: bool = key(
        True,
        "paste half of a source image's classes into the target image (ClassMix); false: target alone",
        earlier=[True],
    )
    LAMBDA_MIX: Number = key(
        1.0, "weight of the loss on the mixed image; 0: batch norms see the target, a control", ge=0.0, earlier=[1.0]
    )
    MASK_RATIO: Number = key(
        0.0,
        "share of masked blocks in a further pass on the target (MIC: 0.7); 0: no such pass",
        ge=0.0,
        le=1.0,
        earlier=[0.0],
    )
    MASK_BLOCK: int = key(64, "side of a masked block in pixels of the network's input", ge=1, earlier=[64])
    LAMBDA_MASK: Number = key(1.0, "weight of the masked pass's loss", ge=0.0, earlier=[1.0])
    STRONG: bool = key(True, "colour jitter and blur of the mixed and the masked image", earlier=[True])
    IGNORE_TOP: Number = key(
        0.0, "share of the target's rows at the top whose pseudo labels do not count", ge=0.0, le=1.0, earlier=[0.0]
    )
    IGNORE_BOTTOM: Number = key(0.0, "likewise at the bottom (the own bonnet)", ge=0.0, le=1.0, earlier=[0.0])
    SCORED: Literal["student", "teacher"] = key("student", "which network the checkpoints hold", earlier=["student"])
    ADVERSARY: bool = key(
        False,
        "also align the domains by a discriminator, on depth-aware maps if there is a depth head; one more pass",
        earlier=[False],
    )


class DepthConfig(Section):
    """Depth that guides self-training. Each idea is independent; all need a network with a depth head."""

    ORDER: bool = key(
        False,
        """paste a source pixel only where it is nearer than the target's pixel: log inverse depths compare, after their
        medians on the road agree""",
        earlier=[False],
    )
    MARGIN: Number = key(
        0.15, "of ORDER, in log inverse depth: how much farther a pasted pixel may be", ge=0.0, earlier=[0.15]
    )
    MIX_LOSS: Number = key(
        0.0,
        "weight of the depth loss on the mixed image (source truth where pasted, else the teacher's)",
        ge=0.0,
        earlier=[0.0],
    )
    PRIOR: Number = key(
        0.0,
        "exponent of p(class | depth) / p(class), learnt on the source, on the teacher's probabilities",
        ge=0.0,
        earlier=[0.0],
    )
    MASKED: Number = key(
        0.0, "weight of the depth loss of the masked pass against the teacher's depth", ge=0.0, earlier=[0.0]
    )
    TARGET: Literal["predicted", "permuted", "mean", "constant", "file"] = key(
        "predicted",
        """the target's depth: the teacher's; or controls: that of another target image (drawn by seed), the mean map, a
        constant; or files of the data set (Cityscapes' disparity, another network's maps)""",
        earlier=["predicted"],
    )


class TestConfig(Section):
    """Evaluation."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    MODE: Literal["last", "best", "single"] = key(
        "last", "the last checkpoint, the best of all (oracle selection), or a single one: RESTORE_FROM or ENSEMBLE"
    )
    SELECT: Literal["oracle", "entropy"] = key(
        "oracle", "with MODE best; entropy: also the selection without labels, by the lowest mean entropy"
    )
    SELECT_IMAGES: int = key(200, "target training images that SELECT=entropy looks at; 0: all", ge=0)
    ENSEMBLE: list[PathText] = key([], "with MODE single: checkpoints whose logits are summed")
    WEIGHTS: list[Number] = key([], "weights of the ensemble's checkpoints; without them 1 each")
    FLIP: bool = key(False, "average with the mirrored image; the paper does not")
    SCALES: list[Number] = key([1.0], "scales of the input to average over; the paper uses 1 alone")
    CROP: InputSize | None = key(
        None,
        """size of the sliding crops that scoring and scripts/predict.py predict and average, in pixels of
        INPUT_SIZE_TARGET; null: an image is predicted at once. TRAIN.PREDICT_CROP is that of pseudo labels and the
        ranking""",
        earlier=[None],
    )
    STRIDE: Size | None = key(None, "step of CROP, at most its size; null: two thirds of it", earlier=[None])
    BN_STATISTICS: Literal["checkpoint", "target"] = key(
        "checkpoint",
        """batch-norm statistics of the scored networks. target: re-estimated on the target's unlabelled training images
        (TRAIN.SET_TARGET at INPUT_SIZE_TARGET, batches of 8), never on the scored split""",
        earlier=["checkpoint"],
    )
    BN_IMAGES: int = key(0, "number of evenly spaced images that BN_STATISTICS=target reads; 0: all", ge=0, earlier=[0])
    SAVE_PREDS: PathText | None = key(
        None, "folder for predictions as label ids and colours; of MODE best, the best checkpoint's"
    )
    SET_TARGET: Text = key("val", "split of the target that is scored")
    LIST: PathText | None = key(
        None, "list file of the scored images of that split (also relative to this project); null: all"
    )
    BATCH_SIZE_TARGET: int = key(1, "images of a batch, also of ISL's pseudo labels and of the ranking", ge=1)
    INPUT_SIZE_TARGET: InputSize = key([1024, 512], "size of the images")
    RESTORE_FROM: PathText | None = key(None, "the checkpoint of MODE single")
    WAIT_MODEL: bool = key(False, "wait until the training stage is complete")


class Config(Section):
    """The whole config."""

    SOURCE: PathText = key("SYNTHIA", "spec of the labelled domain: a name under configs/datasets, or a path")
    TARGET: PathText = key("Cityscapes", "spec of the unlabelled domain")
    GEOMETRY_TARGET: Geometry | None = key(
        None,
        """how the target's images are brought to the input size; null: as its spec says. A loaded config holds it:
        predictions depend on it, and the spec may not be available""",
        earlier=[None, "stretch"],
    )
    NUM_CLASSES: int = key(16, "number of classes", ge=2)
    CLASSES: PathText | ClassSetConfig | None = key(
        None,
        """class set under configs/classes, or a path; null: the data sets' own, else by NUM_CLASSES. A loaded config
        holds the whole set, so that it is stored with every checkpoint""",
    )
    DATA_ROOT: PathText = key("data", "folder of the data sets", affects_training=False)
    DATA_DIRECTORY_SOURCE: PathText | None = key(None, "folder of the source under DATA_ROOT; null: its spec's")
    DATA_DIRECTORY_TARGET: PathText | None = key(None, "folder of the target under DATA_ROOT; null: its spec's")
    DATA_LIST_SOURCE: PathText | None = key(None, "list file (also relative to this project); null: the whole folder")
    DATA_LIST_TARGET: PathText | None = key(None, "list file (also relative to this project); null: the whole folder")
    DATA_CACHE: PathText | None = key(
        "cache", "folder of decoded images (scripts/prepare.py), under DATA_ROOT; null: none", affects_training=False
    )
    DATA_CHECK: int = key(
        16, "images of each data set that are checked before a stage begins; 0: none", ge=0, affects_training=False
    )
    NUM_WORKERS: int = key(4, "data loading processes of each domain", ge=0, affects_training=False)
    DEVICE: Text = key("auto", "auto, cpu, cuda, cuda:N or mps", affects_training=False)
    EXP_ROOT: PathText = key("experiments", "folder of all experiments", affects_training=False)
    EXP_NAME: FolderName = key("ep1", "folder of the experiment under EXP_ROOT", affects_training=False)
    EXP_SUFFIX: Annotated[str, AfterValidator(checked_text), AfterValidator(folder_name)] = key(
        "", "appended to EXP_NAME", affects_training=False
    )
    STAGE: StageConfig = Field(default_factory=StageConfig)
    MODEL: ModelConfig = Field(default_factory=ModelConfig)
    TRAIN: TrainConfig = Field(default_factory=TrainConfig)
    AUGMENT: AugmentConfig = Field(default_factory=AugmentConfig)
    ISL: IslConfig = Field(default_factory=IslConfig)
    RANK: RankConfig = Field(default_factory=RankConfig)
    SELF_TRAINING: SelfTrainingConfig = Field(default_factory=SelfTrainingConfig)
    DEPTH: DepthConfig = Field(default_factory=DepthConfig)
    TEST: TestConfig = Field(default_factory=TestConfig, json_schema_extra={"affects_training": False})
