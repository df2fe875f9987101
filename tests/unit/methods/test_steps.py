"""Losses, steps and optimizers: closed forms and invariants."""

import copy
import dataclasses
import math

import pytest
import torch

import daf.methods  # noqa: F401
from advent.methods.steps import StepContext, adversarial_step, discriminator_step, information_map
from advent.model.deeplabv2 import get_deeplab_v2
from advent.training.optim import RepeatedSGD, update_multiplicity
from advent.utils.loss import cross_entropy_2d, entropy_loss, self_information
from advent.utils.schedule import poly_rate
from daf.interaction import depth_aware_map
from daf.loss import berhu
from helpers.small_learner import batches, small_learner


def test_uniform_prediction_has_unit_entropy():
    probs = torch.full((1, 16, 2, 2), 1 / 16)
    torch.testing.assert_close(self_information(probs).sum(1), torch.ones(1, 2, 2))
    torch.testing.assert_close(entropy_loss(probs), torch.tensor(1.0))


def test_certain_prediction_has_no_entropy():
    probs = torch.eye(4).reshape(1, 4, 2, 2).double()
    assert entropy_loss(probs).abs() < 1e-12


def test_self_information_needs_two_classes():
    with pytest.raises(ValueError, match="two classes"):
        self_information(torch.ones(1, 1, 2, 2))


def test_cross_entropy_without_a_valid_pixel_is_zero_with_a_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = cross_entropy_2d(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_cross_entropy_ignores_255_and_negatives():
    logits = torch.zeros(1, 4, 1, 3)
    torch.testing.assert_close(cross_entropy_2d(logits, torch.tensor([[[1, 255, -1]]])), torch.tensor(math.log(4)))


def test_berhu_by_hand():
    # Errors 1, 2, 10; c = 2: 1, 2 and (100 + 4) / 4 = 26.
    pred = torch.tensor([[[[1.0, 2.0, 10.0]]]])
    torch.testing.assert_close(berhu(pred, torch.zeros(1, 1, 3)), torch.tensor((1 + 2 + 26) / 3))


def test_berhu_of_a_perfect_prediction():
    pred = torch.ones(1, 1, 2, 2, requires_grad=True)
    loss = berhu(pred, torch.ones(1, 2, 2))
    loss.backward()
    assert loss == 0
    assert torch.isfinite(pred.grad).all()


def test_depth_aware_map_powers():
    logits, depth = torch.randn(2, 5, 3, 4), torch.randn(2, 1, 3, 4)
    plain = self_information(logits.softmax(1))
    torch.testing.assert_close(depth_aware_map(logits, depth, 0), plain)
    torch.testing.assert_close(depth_aware_map(logits, depth, 2), plain * depth * depth)
    with pytest.raises(ValueError, match="resize"):
        depth_aware_map(logits, depth[..., :2])


def test_multiplicities_of_the_full_network():
    net = get_deeplab_v2(16, multi_level=False)
    counts = {}
    for name, _ in net.backbone_parameters():
        counts[update_multiplicity(name)] = counts.get(update_multiplicity(name), 0) + 1
    assert counts == {1: 1, 3: 99, 4: 4}


def test_once_equals_plain_sgd():
    values = [torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2)]
    ours = RepeatedSGD([{"params": [values[0]], "repeats": 1}], lr=0.1, momentum=0.9, weight_decay=0.01)
    plain = torch.optim.SGD([values[1]], lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(3):
        for value, optimizer in zip(values, (ours, plain), strict=True):
            value.grad = value.detach() * step
            optimizer.step()
    assert torch.equal(*values)


def test_rate_ends_at_zero():
    assert poly_rate(1.0, 10, 10, 0.9) == 0
    assert poly_rate(1.0, 0, 10, 0.9) == 1


def test_groups_put_backbone_first_and_heads_at_ten_times():
    learner = small_learner()
    learner.rates(0)
    groups = learner.optimizers["net"].param_groups
    assert [group["lr"] for group in groups[:2]] == [2.5e-4, 2.5e-3]
    assert {group["repeats"] for group in groups} == {1, 3, 4}


def test_head_rate():
    learner = small_learner(HEAD_RATE=0.5)
    learner.rates(0)
    assert [group["lr"] for group in learner.optimizers["net"].param_groups[:2]] == [2.5e-4, 1.25e-4]


def test_single_discriminator_pass_equals_two_passes():
    """A single discriminator pass on the target gives the gradients of two separate passes."""
    learner = small_learner()
    context = StepContext(
        learner.net.double(),
        learner.method,
        discriminators=learner.context.discriminators.double(),
        weights=learner.context.weights,
    )
    context.net.eval()  # batch statistics would differ between the two computations
    source, target = ({k: v.double() if v.is_floating_point() else v for k, v in b.items()} for b in batches())
    adversarial_step(context, source, target)
    got = {
        n: p.grad.clone()
        for m in (context.net, context.discriminators)
        for n, p in m.named_parameters()
        if p.grad is not None
    }
    context.net.zero_grad()
    context.discriminators.zero_grad()

    bce = torch.nn.functional.binary_cross_entropy_with_logits
    discriminator = context.discriminators["main"]
    on_source, on_target = context.predict(source["image"]), context.predict(target["image"])
    map_src, map_trg = information_map(on_source.main, None), information_map(on_target.main, None)
    domain_logits = discriminator(map_trg)
    (
        cross_entropy_2d(on_source.main, source["label"]) + 0.001 * bce(domain_logits, torch.zeros_like(domain_logits))
    ).backward()
    discriminator.zero_grad()
    for domain_map, label in ((map_src, 0.0), (map_trg, 1.0)):
        domain_logits = discriminator(domain_map.detach())
        (0.5 * bce(domain_logits, torch.full_like(domain_logits, label))).backward()
    want = {
        n: p.grad for m in (context.net, context.discriminators) for n, p in m.named_parameters() if p.grad is not None
    }
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-9, atol=1e-12)


def test_depth_head_without_gradient_is_not_updated():
    """Without a depth-aware map no gradient reaches convR0, bnR0 and convR2: no update, no weight decay."""
    learner = small_learner("AdvEnt", "DeepLabv2_depth")
    before = {n: p.detach().clone() for n, p in learner.net.named_parameters()}
    learner.update(0, *batches())
    after = dict(learner.net.named_parameters())
    for name in ("convR0.weight", "bnR0.weight", "convR2.weight", "convR2.bias"):
        assert torch.equal(before[name], after[name])
    assert not torch.equal(before["mff_conv.weight"], after["mff_conv.weight"])


def test_batch_norm_affine_is_frozen_and_statistics_update():
    learner = small_learner()
    before = {n: t.clone() for n, t in learner.net.state_dict().items() if n.startswith("bn1.")}
    learner.update(0, *batches())
    after = learner.net.state_dict()
    assert torch.equal(before["bn1.weight"], after["bn1.weight"])
    assert not torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert after["bn1.num_batches_tracked"] == 2


def test_optimizer_state_survives_a_round_trip():
    saved, restored = small_learner(), small_learner()
    saved.update(0, *batches())
    restored.load_state_dict(copy.deepcopy(saved.state_dict()))
    for learner in (saved, restored):
        learner.update(1, *batches())
    assert all(
        torch.equal(a, b)
        for a, b in zip(saved.net.state_dict().values(), restored.net.state_dict().values(), strict=True)
    )


def test_gradient_penalty_of_a_linear_discriminator():
    """The mean of w x over n pixels has the gradient w / n at each: half its squared norm is w^2 / 2 n, slope w / n."""
    discriminator = torch.nn.Conv2d(2, 1, 1).double()
    method = small_learner().method
    weights = {"adv": 1.0, "d_r1": 3.0}
    context = StepContext(torch.nn.Identity(), method, discriminators=torch.nn.ModuleDict({"main": discriminator}))
    maps = torch.rand(4, 2, 3, 5, dtype=torch.float64), torch.rand(4, 2, 3, 5, dtype=torch.float64)

    def gradient(**changed):
        discriminator.zero_grad()
        losses, on_map = discriminator_step(dataclasses.replace(context, **changed), "main", *maps)
        return losses, on_map, discriminator.weight.grad.clone()

    plain, on_map, without = gradient()
    penalised, same_on_map, with_penalty = gradient(weights=weights)
    assert "d_r1" not in plain
    torch.testing.assert_close(penalised["d_r1"], discriminator.weight.detach().square().sum() / (2 * 15))
    torch.testing.assert_close(with_penalty - without, 3 * discriminator.weight.detach() / 15)
    torch.testing.assert_close(on_map, same_on_map)


def test_spectral_norm_bounds_every_layer_and_survives_a_resume():
    source, target = batches()
    learner = small_learner(SPECTRAL_NORM_D=True, LAMBDA_R1=1.0)
    for iteration in range(15):  # each forward pass is one step of the power iteration
        learner.update(iteration, source, target)
    layers = [m for m in learner.context.discriminators["main"] if isinstance(m, torch.nn.Conv2d)]
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]
    assert norms == pytest.approx([1.0] * 5, abs=0.1)
    other = small_learner(SPECTRAL_NORM_D=True, LAMBDA_R1=1.0)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    ours, theirs = learner.update(15, source, target), other.update(15, source, target)
    assert {name: value.item() for name, value in ours.items()} == {k: v.item() for k, v in theirs.items()}
    assert ours["d_r1"] >= 0


def test_a_skipped_iteration_changes_nothing_of_a_spectrally_normalised_discriminator():
    source, target = batches()
    learner = small_learner(SPECTRAL_NORM_D=True)
    learner.update(0, source, target)
    before = copy.deepcopy(learner.context.discriminators.state_dict())
    learner.update(1, {**source, "image": source["image"] * float("nan")}, target)
    after = learner.context.discriminators.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
