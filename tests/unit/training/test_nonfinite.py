"""Non-finite losses and gradients: the step is skipped without any change and reported with its image files."""

import math

import pytest
import torch

from advent.training.metric_buffer import MetricBuffer
from advent.training.nonfinite import Guard
from advent.training.optim import has_fused_kernels
from helpers.small_learner import batches, small_learner


def state(learner):
    moments = [v for o in learner.optimizers.values() for s in o.state_dict()["state"].values() for v in s.values()]
    return [*learner.net.state_dict().values(), *learner.context.discriminators.state_dict().values(), *moments]


def copied(tensors):
    return [t.clone() for t in tensors]


@pytest.mark.parametrize(
    ("method", "side"),
    [("AdvEnt", "source"), ("AdvEnt", "target"), ("MinEnt", "source"), ("MinEnt", "target"), ("SourceOnly", "source")],
)
def test_nonfinite_step_changes_nothing(method, side):
    learner = small_learner(method)
    learner.update(0, *batches())
    before = copied(state(learner))
    source, target = batches()
    poisoned = {"source": source, "target": target}[side]
    poisoned["image"] = poisoned["image"].clone()
    poisoned["image"][0, 0, 0, 0] = math.nan
    values = learner.update(1, source, target)
    assert not all(torch.isfinite(value) for value in values.values())
    assert all(torch.equal(a, b) for a, b in zip(before, state(learner), strict=True))
    learner.update(2, *batches())
    assert all(torch.isfinite(value).all() for value in state(learner))
    assert not torch.equal(before[0], state(learner)[0])


def test_nonfinite_first_step_keeps_optimizers_valid():
    learner, clean = small_learner(), small_learner()
    source, target = batches()
    learner.update(0, {**source, "image": source["image"] * math.inf}, target)
    for each in (learner, clean):
        each.update(1, *batches())
    assert all(torch.equal(a, b) for a, b in zip(state(learner), state(clean), strict=True))


def test_nonfinite_gradient_with_finite_loss_is_skipped():
    learner = small_learner("SourceOnly")
    before = copied(learner.net.state_dict().values())
    handle = learner.net.conv1.weight.register_hook(lambda gradient: gradient * math.inf)
    values = learner.update(0, *batches())
    handle.remove()
    assert math.isfinite(values["seg"])
    assert not math.isfinite(values["gradient"])
    assert all(torch.equal(a, b) for a, b in zip(before, learner.net.state_dict().values(), strict=True))


def test_nonfinite_step_is_skipped_without_fused_kernels():
    layer = torch.nn.Linear(2, 1)
    guard = Guard([layer], {"gradient": torch.optim.SGD(layer.parameters(), lr=1.0)})
    for loss, moves in ((layer(torch.full((1, 2), math.nan)).sum(), False), (layer(torch.ones(1, 2)).sum(), True)):
        layer.zero_grad()
        before = layer.weight.detach().clone()
        loss.backward()
        guard.step_if_finite(guard.unscale_and_check({"loss": loss}))
        assert torch.equal(before, layer.weight) != moves


def test_unfused_where_a_device_has_no_kernel():
    assert has_fused_kernels([torch.zeros(1)])
    assert not has_fused_kernels([torch.zeros(1, device="meta")])


def test_gradient_norm_is_the_norm_of_all_gradients():
    learner = small_learner("SourceOnly")
    values = learner.update(0, *batches())
    gradients = [p.grad for p in learner.net.parameters() if p.grad is not None]
    want = torch.cat([g.flatten() for g in gradients]).norm()
    torch.testing.assert_close(values["gradient"], want)


@pytest.mark.parametrize("method", ["DAF", "DADA", "AdvEnt", "MinEnt"])
@pytest.mark.parametrize("case", ["no label", "perfect depth", "constant image", "one pixel"])
def test_degenerate_inputs_stay_finite(method, case):
    network = {"DAF": "DeepLabv2_depth", "DADA": "DeepLabv2_depth_DADA"}.get(method, "DeepLabv2")
    learner = small_learner(method, network)
    source, target = batches()
    source["depth"] = torch.ones(2, 48, 64)
    if case == "no label":
        source["label"] = torch.full_like(source["label"], 255)
    if case == "perfect depth":
        learner.context.supervised = lambda prediction, batch, original=learner.context.supervised: original(
            prediction,
            {
                **batch,
                "depth": prediction.depth.detach().squeeze(1) if prediction.depth is not None else batch["depth"],
            },
        )
    if case == "constant image":
        source["image"], target["image"] = torch.zeros(2, 3, 48, 64), torch.full((2, 3, 48, 64), 7.0)
    if case == "one pixel":
        source["label"] = torch.full_like(source["label"], 255)
        source["label"][0, 5, 5] = 3
    for step in range(2):
        values = learner.update(step, source, target)
        assert all(torch.isfinite(value) for value in values.values()), values
    assert all(torch.isfinite(value).all() for value in learner.net.state_dict().values())


def test_buffer_reports_nonfinite_values_and_averages_the_rest():
    buffer = MetricBuffer()
    for iteration, loss in enumerate((1.0, math.nan, 3.0)):
        buffer.add(iteration, {"seg": torch.tensor(loss), "adv": torch.tensor(0.5)}, [f"source {iteration}.png"])
    again = MetricBuffer.from_state(buffer.state_dict(), torch.device("cpu"))
    summary = again.fetch()
    assert summary.means == {"seg": 2.0, "adv": 0.5}
    (skipped,) = summary.skipped
    assert str(skipped) == "iteration 1: not finite: seg nan; finite: adv 0.5; images: source 1.png"


def test_no_finite_value_gives_no_mean():
    buffer = MetricBuffer()
    buffer.add(0, {"seg": torch.tensor(math.inf)}, [])
    summary = buffer.fetch()
    assert summary.means == {}
    assert summary.skipped[0].iteration == 0
