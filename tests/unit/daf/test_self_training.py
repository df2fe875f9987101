"""The self-training step: teacher, statistics, mixing, masking, depth, resuming."""

import copy

import pytest
import torch

from advent.config.loading import default_config
from advent.errors import ConfigError
from advent.methods.registry import find_method, find_network
from advent.model.batch_norm import batch_norms
from advent.model.deeplabv2 import initialise
from advent.model.encoder import ResNetEncoder
from advent.training.learner import Learner
from daf.self_training import label_target, paste_mask
from helpers.scalar_reads import ScalarReads
from helpers.small_learner import batches, small_learner

WARM_UP = 40  # default of SELF_TRAINING.STATISTICS_PASSES


def learner_of(network="DeepLabv2", depth=None, train=None, **settings):
    config = default_config()
    config.MODEL.NAME, config.TRAIN.DA_METHOD = network, "SelfTraining"
    config.AUGMENT.CROP = [64, 48]
    for section, values in ((config.SELF_TRAINING, settings), (config.DEPTH, depth or {}), (config.TRAIN, train or {})):
        for key, value in values.items():
            setattr(section, key, value)
    torch.manual_seed(0)
    entry = find_network(config)
    net = entry.build(config, ResNetEncoder((1, 1, 1, 1), 8))
    initialise(net, "he")
    return Learner(net, find_method(config), entry.supervised, config.TRAIN, torch.device("cpu"))


def pair(depth=False):
    source, target = batches()
    if depth:
        source = {**source, "depth": torch.rand(2, 48, 64, generator=torch.manual_seed(4)) * 100 + 1}
    return source, target


def test_the_teacher_is_the_moving_average_of_the_student():
    learner = learner_of(ALPHA=0.6)
    students = []
    for iteration in range(4):
        students.append([p.detach().clone() for p in learner.net.parameters()])
        learner.update(iteration, *pair())
    expected = students[0]
    for t, student in list(enumerate(students))[1:]:
        a = min(1 - 1 / (t + 1), 0.6)
        expected = [a * old + (1 - a) * new for old, new in zip(expected, student, strict=True)]
    for mine, wanted in zip(learner.context.state.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-6)


def test_without_its_loss_it_trains_as_source_only_does():
    plain, control = small_learner("SourceOnly"), learner_of(LAMBDA_MIX=0.0)
    for iteration in range(3):
        plain.update(iteration, pair()[0])
        control.update(iteration, *pair())
    pairs = list(zip(plain.net.parameters(), control.net.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    norms = [batch_norms(learner.net)[0].running_mean for learner in (plain, control)]
    assert not torch.equal(*norms)  # the batch norms saw the target


def test_before_its_start_the_source_alone_trains():
    plain, later = small_learner("SourceOnly"), learner_of(START=2)
    for iteration in range(3):
        plain.update(iteration, pair()[0])
        losses = later.update(iteration, *pair())
        same = all(torch.equal(a, b) for a, b in zip(plain.net.parameters(), later.net.parameters(), strict=True))
        assert same == (iteration < 2)
        assert (losses["mix"] != 0) == (iteration == 2)


def test_target_statistics_are_those_of_the_target_alone():
    learner = learner_of(TEACHER_STATISTICS="target", START=WARM_UP + 2, train={"LEARNING_RATE": 0.0})
    teacher = learner.context.state.teacher
    seen = []
    images = pair()[1]["image"]
    for iteration in range(5):
        target = {"image": images * (1 + iteration)}
        seen.append(learner.net.conv1(target["image"]).mean((0, 2, 3)).detach())
        learner.update(iteration, pair()[0], target)
    torch.testing.assert_close(teacher.bn1.running_mean, torch.stack(seen[2:]).mean(0))  # from START - WARM_UP on
    assert not teacher.training
    assert not torch.allclose(teacher.bn1.running_mean, learner.net.bn1.running_mean)


def test_the_masked_pass_moves_no_statistics():
    plain = learner_of(train={"LEARNING_RATE": 0.0}, MIX=False, STRONG=False)
    masked = learner_of(train={"LEARNING_RATE": 0.0}, MIX=False, STRONG=False, MASK_RATIO=0.7, MASK_BLOCK=8)
    for learner in (plain, masked):
        losses = learner.update(0, *pair())
    assert losses["mask"] >= 0
    for one, other in zip(plain.net.buffers(), masked.net.buffers(), strict=True):
        assert torch.equal(one, other)
    assert all(norm.momentum == 0.1 for norm in batch_norms(masked.net))


@pytest.mark.parametrize("kind", ["predicted", "permuted", "mean", "constant"])
def test_every_idea_about_depth_trains(kind):
    learner = learner_of(
        "DeepLabv2_depth",
        {"ORDER": True, "MIX_LOSS": 0.1, "PRIOR": 0.3, "MASKED": 0.01, "TARGET": kind},
        MASK_RATIO=0.7,
        MASK_BLOCK=8,
        THRESHOLD=0.0,
    )
    for iteration in range(3):
        losses = learner.update(iteration, *pair(depth=True))
        assert all(torch.isfinite(value) for value in losses.values())
    assert losses["mix_depth"] > 0
    assert losses["mask_depth"] > 0
    assert learner.context.state.class_counts.sum() > 0


def test_depth_order_pastes_less_and_a_constant_depth_changes_nothing():
    source, target = pair(depth=True)
    pasted = {}
    kinds = {"plain": {}, "order": {"ORDER": True}, "constant": {"ORDER": True, "TARGET": "constant"}}
    for name, depth in kinds.items():
        learner = learner_of("DeepLabv2_depth", depth)
        learner.context.state.begin(learner.net, 0)
        near = source["depth"].clone()
        near[:, :24] = 1.0  # far
        labels = label_target(learner.context, target, torch.arange(2))
        labels.depth = torch.full_like(near, 3.0) if name == "order" else labels.depth
        pasted[name] = paste_mask(learner.context.state, {**source, "depth": near}, labels, torch.arange(2))
    assert torch.equal(pasted["plain"], pasted["constant"])
    assert 0 < pasted["order"].sum() < pasted["plain"].sum()
    assert not (pasted["order"] & ~pasted["plain"]).any()


def test_a_restored_learner_continues_to_the_same_weights():
    settings = {"TEACHER_STATISTICS": "target", "MASK_RATIO": 0.5, "MASK_BLOCK": 8, "CLASS_SHARE": 0.5}
    depth = {"PRIOR": 0.3, "TARGET": "mean"}
    learner = learner_of("DeepLabv2_depth", depth, **settings)
    for iteration in range(WARM_UP, WARM_UP + 2):
        learner.update(iteration, *pair(depth=True))
    other = learner_of("DeepLabv2_depth", depth, **settings)
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    for each in (learner, other):
        each.update(WARM_UP + 2, *pair(depth=True))
    state, again = learner.state_dict(), other.state_dict()
    for part in ("net", "method"):
        assert all(torch.equal(state[part][name], again[part][name]) for name in state[part])


def test_a_skipped_iteration_leaves_the_teachers_statistics():
    learner = learner_of(TEACHER_STATISTICS="target", MASK_RATIO=0.5)
    learner.update(WARM_UP, *pair())
    before = [buffer.clone() for buffer in learner.context.state.buffers()]
    source, target = pair()
    learner.update(WARM_UP + 1, {**source, "image": source["image"] * float("nan")}, target)
    for mine, kept in zip(learner.context.state.buffers(), before, strict=True):
        assert torch.equal(mine, kept)


def test_the_scored_network_is_a_key():
    assert learner_of().scored is not learner_of().context.state.teacher
    learner = learner_of(SCORED="teacher")
    assert learner.scored is learner.context.state.teacher


@pytest.mark.parametrize("network", ["DeepLabv2", "DeepLabv2_depth"])
def test_an_adversary_trains_beside(network):
    learner = learner_of(network, ADVERSARY=True)
    assert {"adv", "d_source", "d_target", "mix"} <= set(learner.update(0, *pair(depth=network != "DeepLabv2")))


@pytest.mark.parametrize(
    ("network", "depth", "train", "message"),
    [
        ("DeepLabv2", {"ORDER": True}, {}, "DEPTH.ORDER: needs a network with a depth head"),
        ("DeepLabv2_depth", {"MASKED": 0.1}, {}, "DEPTH.MASKED: there is no masked pass"),
        ("DeepLabv2_depth", {"TARGET": "permuted"}, {"ACCUMULATE": 2}, "run this control with TRAIN.ACCUMULATE=1"),
        ("DeepLabv2_depth", {"ORDER": True}, {"LAMBDA_DEPTH_MAIN": 0.0}, "the depth head is not trained"),
    ],
)
def test_settings_that_do_not_fit_are_refused(network, depth, train, message):
    with pytest.raises(ConfigError, match=message):
        learner_of(network, depth, train)


def test_batches_of_two_sizes_cannot_be_mixed():
    config = default_config()
    config.TRAIN.DA_METHOD, config.TRAIN.INPUT_SIZE_TARGET = "SelfTraining", [64, 64]
    with pytest.raises(ConfigError, match="source and target batches must have one size"):
        find_method(config)


ALL_IDEAS = {"ORDER": True, "MIX_LOSS": 0.1, "PRIOR": 0.3, "MASKED": 0.01}


@pytest.mark.parametrize(
    ("depth", "settings"),
    [
        ({}, {}),
        ({}, {"MASK_RATIO": 0.7}),
        ({}, {"WEIGHT": "confidence", "IGNORE_TOP": 0.1, "IGNORE_BOTTOM": 0.2}),
        ({}, {"ADVERSARY": True}),
        ({"ORDER": True, "MIX_LOSS": 0.1}, {}),
        ({"PRIOR": 0.3}, {}),
        ({"MASKED": 0.01}, {"MASK_RATIO": 0.7}),
        *[({**ALL_IDEAS, "TARGET": kind}, {"MASK_RATIO": 0.7}) for kind in ("permuted", "mean", "constant")],
    ],
    ids=str,
)
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_step_reads_no_scalar(depth, settings, amp):
    """On a GPU, the host never waits for the device."""
    learner = learner_of("DeepLabv2_depth", depth, {"AMP": amp}, TEACHER_STATISTICS="target", **settings)
    learner.update(WARM_UP, *pair(depth=True))
    with ScalarReads() as counter:
        learner.update(WARM_UP + 1, *pair(depth=True))
    assert counter.reads == []


def test_the_teacher_recomputes_its_own_activations():
    """The copy of a network with activation checkpointing runs its own stages, not those of the student."""
    settings = {"CHECKPOINT_ACTIVATIONS": True, "LEARNING_RATE": 0.01}
    plain, checkpointed = learner_of(train={"LEARNING_RATE": 0.01}), learner_of(train=settings)
    for learner in (plain, checkpointed):
        for iteration in range(3):
            learner.update(iteration, *pair())
    outputs = [
        learner.context.state.predict(learner.context, pair()[1]["image"]).main for learner in (plain, checkpointed)
    ]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    stage = checkpointed.context.state.teacher.layer1
    assert stage.forward.args[0] is stage
