"""Reduced precision, activation checkpointing, compilation, and no device synchronisation inside a step."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import daf.methods  # noqa: F401  (registers DAF and DADA)
from advent.errors import ConfigError
from advent.evaluation.evaluate import upsample_argmax
from advent.model.outputs import forward
from advent.model.precision import AMP_DTYPES, FIRST_SCALE
from advent.utils.metrics import confusion_counts, confusion_matrix
from helpers.scalar_reads import ScalarReads
from helpers.small_learner import batches, small_learner

PROJECT = Path(__file__).parents[3]
METHODS = [
    ("SourceOnly", "DeepLabv2"),
    ("MinEnt", "DeepLabv2"),
    ("AdvEnt", "DeepLabv2"),
    ("DAF", "DeepLabv2_depth"),
    ("DADA", "DeepLabv2_depth_DADA"),
]


def with_depth() -> Any:
    source, target = batches()
    return {**source, "depth": torch.rand(2, 48, 64) * 100 + 1}, target


def test_scalar_reads_are_detected() -> None:
    with ScalarReads() as counter:
        value = torch.ones(3)
        float(value[0])
        bool(value[1] > 0)
        value[value > 0]
    assert len(counter.reads) >= 2


@pytest.mark.parametrize(
    ("method", "network", "amp"),
    [
        *[(*method_and_network, amp) for method_and_network in METHODS for amp in ("off", "bf16")],
        ("AdvEnt", "DeepLabv2", "fp16"),
    ],
)
def test_step_reads_no_scalar(method: str, network: str, amp: str) -> None:
    learner = small_learner(method, network, AMP=amp)
    learner.update(0, *with_depth())
    with ScalarReads() as counter:
        learner.update(1, *with_depth())
    assert counter.reads == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("method", "network"), METHODS)
def test_step_does_not_synchronise_with_a_gpu(method: str, network: str) -> None:
    learner = small_learner(method, network, device="cuda")
    source, target = ({k: v.cuda() for k, v in batch.items()} for batch in with_depth())
    learner.update(0, source, target)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.update(1, source, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")


IN_A_STEP = """
advent/methods/steps.py advent/training/learner.py advent/training/nonfinite.py advent/training/optim.py
advent/model/precision.py advent/model/activation_checkpointing.py advent/utils/loss.py advent/model/deeplabv2.py
advent/model/encoder.py advent/model/discriminator.py daf/loss.py daf/interaction.py daf/methods.py
daf/model/deeplabv2_depth.py daf/model/dada.py
"""


@pytest.mark.parametrize("file", IN_A_STEP.split())
def test_step_code_has_no_device_transfer(file: str) -> None:
    transfers = re.findall(r"\.cpu\(|\.item\(|\.tolist\(|\.numpy\(|synchronize", (PROJECT / file).read_text())
    assert transfers == []


# --- precision


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_losses_maps_and_statistics_stay_in_float32(amp: str) -> None:
    learner = small_learner("DAF", "DeepLabv2_depth", AMP=amp)
    seen = []
    learner.context.net.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    learner.context.discriminators["main"].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].dtype)
    )
    values = learner.update(0, *with_depth())
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    assert seen[0] == seen[1] == half  # the network runs in reduced precision
    assert set(seen[2:]) == {torch.float32}  # the discriminator's input maps do not
    assert {value.dtype for value in values.values()} == {torch.float32}
    assert {v.dtype for v in learner.net.state_dict().values() if v.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_reduced_precision_is_near_full_precision(amp: str) -> None:
    full, half = small_learner("DAF", "DeepLabv2_depth"), small_learner("DAF", "DeepLabv2_depth", AMP=amp)
    for iteration in range(3):
        expected, got = (learner.update(iteration, *with_depth()) for learner in (full, half))
    for name in ("seg", "depth", "adv", "d_source", "d_target"):
        torch.testing.assert_close(got[name], expected[name], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("method", "network", "last"), [("DAF", "DeepLabv2_depth", "convR2"), ("DADA", "DeepLabv2_depth_DADA", "enc4_3")]
)
def test_the_depth_of_the_nearest_pixel_fits_into_reduced_precision(
    method: str, network: str, last: str, amp: str
) -> None:
    """Inverse depth reaches 65536 (0 cm). float16 ends at 65504; bfloat16 has no odd numbers of that size."""
    net = small_learner(method, network).net.eval()
    for name, value in ((last, 65535.0), ("dec4", 1.0)):  # with zero weights a layer returns its bias
        layer = net.get_submodule(name)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, value)
    with torch.inference_mode():
        _, logits, depth = forward(net, batches()[0]["image"], AMP_DTYPES[amp]).each(torch.Tensor.float)
    assert depth is not None
    torch.testing.assert_close(depth, torch.full_like(depth, 65535.0), rtol=1e-6, atol=0)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("method", "network"), METHODS[-2:])
def test_networks_with_a_depth_head_run_where_there_is_no_autocast(method: str, network: str) -> None:
    """PyTorch's meta device stands for MPS under an older PyTorch: `torch.autocast` itself raises on both."""
    net = small_learner(method, network).net.to("meta")
    assert net(torch.zeros(1, 3, 48, 64, device="meta"))[2].dtype == torch.float32


def test_an_overflow_halves_the_scale_and_changes_nothing_else() -> None:
    learner = small_learner("AdvEnt", AMP="fp16")
    learner.update(0, *batches())
    before = [t.clone() for t in learner.net.state_dict().values()]
    handle = learner.net.conv1.weight.register_hook(lambda gradient: gradient * float("inf"))
    values = learner.update(1, *batches())
    handle.remove()
    assert values["overflow"] == 1
    assert all(torch.isfinite(value) for value in values.values())  # an overflow does not end a run
    assert all(torch.equal(a, b) for a, b in zip(before, learner.net.state_dict().values(), strict=True))
    after = learner.update(2, *batches())
    assert after["loss_scale"] == FIRST_SCALE / 2
    assert after["overflow"] == 0
    assert not torch.equal(before[0], learner.net.state_dict()["conv1.weight"])


def test_a_loss_that_is_not_finite_is_no_overflow() -> None:
    learner = small_learner("SourceOnly", AMP="fp16")
    source, target = batches()
    values = learner.update(0, {**source, "image": source["image"] * float("nan")}, target)
    assert values["overflow"] == 0
    assert not torch.isfinite(values["seg"])


def test_overflow_at_the_least_scale_is_an_error() -> None:
    learner = small_learner("SourceOnly", AMP="fp16")
    learner.update(0, *batches())
    learner.scale.load_state_dict({**learner.scale.state_dict(), "scale": 1.0})
    handle = learner.net.conv1.weight.register_hook(lambda gradient: gradient * float("inf"))
    values = learner.update(1, *batches())
    handle.remove()
    assert not torch.isfinite(values["gradient"])


def test_the_scale_survives_a_round_trip() -> None:
    saved, restored = small_learner(AMP="fp16"), small_learner(AMP="fp16")
    handle = saved.net.conv1.weight.register_hook(lambda gradient: gradient * float("inf"))
    saved.update(0, *batches())
    handle.remove()
    restored.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert restored.update(1, *batches())["loss_scale"] == FIRST_SCALE / 2


# --- activation checkpointing


@pytest.mark.parametrize(("method", "network"), METHODS)
def test_activation_checkpointing_is_bit_exact(method: str, network: str) -> None:
    """Exact without a depth head; with one, the two gradients of a map are added in another order."""
    plain, recomputing = (small_learner(method, network, CHECKPOINT_ACTIVATIONS=on) for on in (False, True))
    for iteration in range(2):
        for learner in (plain, recomputing):
            learner.update(iteration, *with_depth())
    states = [learner.net.state_dict() for learner in (plain, recomputing)]
    assert states[0].keys() == states[1].keys()
    exact = {} if network == "DeepLabv2" else {"rtol": 1e-4, "atol": 1e-5}
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, **(exact or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("options", [{}, {"ACCUMULATE": 2}, {"AMP": "fp16"}], ids=str)
def test_activation_checkpointing_with_sync_batch_norm(options: dict[str, Any]) -> None:
    """In one process SyncBatchNorm acts as plain batch norm, but it requires num_batches_tracked."""
    states = []
    for on in (False, True):
        learner = small_learner("AdvEnt", SYNC_BN=True, CHECKPOINT_ACTIVATIONS=on, **options)
        for iteration in range(2):
            source, target = batches()
            micro_batches = options.get("ACCUMULATE", 1)
            learner.update(iteration, [source] * micro_batches, [target] * micro_batches)
        states.append(learner.net.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(states[1][name], tensor), name
    # Per iteration one source and one target batch count, despite recomputation; micro-batches start from one state.
    assert {int(count) for name, count in states[1].items() if name.endswith("num_batches_tracked")} == {4}


def test_activation_checkpointing_saves_memory() -> None:
    kept = []
    for on in (False, True):
        learner = small_learner("SourceOnly", CHECKPOINT_ACTIVATIONS=on)
        sizes: dict[int, int] = {}

        def remember(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            learner.context.predict(batches()[0]["image"])
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.8 * kept[0]


def test_activation_checkpointing_is_refused_for_timm_encoders() -> None:
    from advent.config.loading import default_config
    from advent.methods.registry import find_method, find_network
    from advent.model.deeplabv2 import DeeplabV2
    from advent.model.timm_encoder import TimmEncoder
    from advent.training.learner import Learner

    config = default_config()
    config.TRAIN.CHECKPOINT_ACTIVATIONS = True
    config.TRAIN.DA_METHOD, config.TRAIN.BACKBONE_UPDATES = "SourceOnly", "once"
    config.MODEL.NAME = "DeepLabv2"
    net = DeeplabV2(7, TimmEncoder("resnet18", (104.0, 116.0, 122.0)))
    with pytest.raises(ConfigError, match=r"CHECKPOINT_ACTIVATIONS: works with MODEL.ENCODER: resnet101 only"):
        Learner(net, find_method(config), find_network(config).supervised, config.TRAIN, torch.device("cpu"))


# --- compilation


@pytest.mark.parametrize(
    ("device", "message"),
    [("mps", "does not work on mps"), ("cuda", "needs triton"), ("cpu", r"needs a C\+\+ compiler")],
)
def test_compilation_is_refused_on_unsupported_devices(
    device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advent.model import precision

    monkeypatch.setattr(precision.shutil, "which", lambda name: None)
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name: None)
    train = type("Train", (), {"COMPILE": True})()
    with pytest.raises(ConfigError, match=rf"TRAIN.COMPILE: .*{message}"):
        precision.maybe_compile(torch.nn.Identity(), train, torch.device(device))


# --- evaluation


@pytest.mark.parametrize("classes", [2, 7, 8, 9, 16, 19])
@pytest.mark.parametrize("size", [(31, 47), (5, 9), (3, 3)])
def test_upsample_argmax_in_chunks_equals_the_full_argmax(classes: int, size: tuple[int, int]) -> None:
    logits = torch.randn(classes, 5, 9, generator=torch.Generator().manual_seed(classes))
    whole = torch.nn.functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=True)[0]
    assert torch.equal(upsample_argmax(logits, size), whole.argmax(0).to(torch.uint8))


def test_of_equal_logits_the_first_class_is_taken() -> None:
    logits = torch.zeros(19, 4, 4)
    assert (upsample_argmax(logits, (9, 9)) == 0).all()
    logits[7] = logits[12] = 1
    assert (upsample_argmax(logits, (9, 9)) == 7).all()


def test_counts_on_a_device_are_the_confusion_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 9, (40, 50), generator=generator).to(torch.uint8)
    labels[labels == 8] = 255
    labels[labels == 7] = 200
    predictions = torch.randint(0, 7, (40, 50), generator=generator).to(torch.uint8)
    expected = confusion_matrix(labels.numpy(), predictions.numpy(), 7)
    assert (confusion_counts(labels, predictions, 7).numpy() == expected).all()
