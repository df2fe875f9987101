"""Re-estimated batch-norm statistics: closed form, what stays unchanged, which images are read."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from advent.build import build_network, evaluation_data, target_data
from advent.checkpoints.io import state_digest
from advent.config.loading import config_digest, load_config
from advent.config.schema import Config
from advent.errors import ConfigError
from advent.evaluation import evaluate
from advent.evaluation.batch_norm import TargetStatistics, spread_batches
from advent.evaluation.results import row_name, summary
from advent.evaluation.stage import evaluation_hook
from advent.model.batch_norm import preserved_statistics, reestimate
from advent.runtime import distributed
from helpers import tiny_data

CPU = torch.device("cpu")


@pytest.fixture
def config(data: Path) -> Config:
    overrides = [*tiny_data.NETWORK, *tiny_data.SIZES, *tiny_data.SHORT, f"DATA_ROOT={data}", "DEVICE=cpu"]
    return load_config("quick:daf", [*overrides, "TEST.BN_STATISTICS=target", "TRAIN.EVAL_EVERY=1"])


def test_statistics_are_the_means_over_batches() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1), nn.Dropout(0.5), nn.BatchNorm2d(2, momentum=0.3)).train()
    net[3].requires_grad_(False)
    before = {name: value.clone() for name, value in net.named_parameters()}
    batches = [2 * torch.randn(count, 3, 5, 7) + count for count in (4, 2, 1)]
    reestimate(net, batches)
    weight, bias = before["1.weight"][:, :, 0, 0], before["1.bias"]
    hidden = []
    for (
        x
    ) in batches:  # the second norm's input: normalised by the biased variance of its own batch, then 1x1 convolution
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        hidden.append(
            torch.einsum("oc,bchw->bohw", weight, (x - mean) / (variance + 1e-5).sqrt()) + bias[:, None, None]
        )
    for norm, inputs in ((net[0], batches), (net[3], hidden)):
        mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
        variance = torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())
    assert all(part.training for part in net.modules())
    assert (net[0].momentum, net[3].momentum) == (0.1, 0.3)


def test_the_norms_of_timm_keep_their_dropout_off() -> None:
    norm = BatchNormAct2d(3, drop_layer=nn.Dropout)
    net = nn.Sequential(norm, nn.BatchNorm2d(3)).eval()
    x = torch.randn(2, 3, 4, 4)
    reestimate(net, [x])
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)))
    kept = (
        (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + norm.eps).sqrt()
    ).relu()
    torch.testing.assert_close(net[1].running_mean, kept.mean((0, 2, 3)))
    assert not any(part.training for part in net.modules())


def test_statistics_stay_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    x = torch.randn(4, 3, 8, 8)
    reestimate(net, [x], torch.bfloat16)
    assert net[1].running_var.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(net[1].running_var, net[0](x).var((0, 2, 3)), rtol=0.02, atol=0.02)


def test_modes_and_momenta_survive_an_error() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()).train()
    net[1].eval()
    with pytest.raises(ValueError, match="no images"):
        reestimate(net, [])
    with pytest.raises(ValueError, match="4D"):
        reestimate(net, [torch.zeros(1)])
    assert (net.training, net[0].training, net[1].training, net[0].momentum) == (True, True, False, 0.1)


def test_a_network_without_batch_norms_is_refused() -> None:
    for net in (nn.Sequential(nn.Conv2d(3, 2, 1), nn.GroupNorm(1, 2)), nn.BatchNorm2d(3, track_running_stats=False)):
        with pytest.raises(ConfigError, match="no batch norms"):
            reestimate(net, [torch.zeros(1, 3, 4, 4)])


def test_statistics_are_put_back() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    net(torch.randn(2, 3, 4, 4))
    before = state_digest(net)
    with preserved_statistics(net):
        reestimate(net, [torch.randn(2, 3, 4, 4)])
        assert state_digest(net) != before
    assert state_digest(net) == before


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 100])
def test_batches_have_nearly_equal_lengths_and_every_image(count: int) -> None:
    batches = spread_batches(range(count))
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    lengths = {len(batch) for batch in batches}
    assert max(lengths) <= 8
    assert max(lengths) - min(lengths) <= 1


def test_images_are_those_of_training_evenly_spaced(config: Config) -> None:
    config.TEST.BN_IMAGES = 3
    statistics = TargetStatistics.for_scoring(config, evaluation_data(config))
    assert statistics is not None
    last = tiny_data.COUNT - 1
    assert statistics.indices == [0, round(last / 2), last]
    assert statistics.dataset.split == "train"
    assert statistics.dataset.label_files is None
    assert statistics.record()["images"] == 3
    config.TEST.BN_STATISTICS = "checkpoint"
    assert TargetStatistics.for_scoring(config) is None


def test_scored_images_are_refused(config: Config) -> None:
    config.TRAIN.SET_TARGET = "val"
    with pytest.raises(ConfigError, match=r"TEST\.BN_STATISTICS: target: .*never estimated on scored images"):
        TargetStatistics.for_scoring(config, evaluation_data(config))


def test_evaluation_in_training_leaves_the_network_as_it_was(config: Config) -> None:
    torch.manual_seed(0)
    net = build_network(config).train()
    images = torch.stack([torch.as_tensor(target_data(config)[index]["image"]) for index in range(2)])
    net(images)  # statistics that are neither new nor the target's
    before, modes = state_digest(net), [part.training for part in net.modules()]
    other = copy.deepcopy(net)
    random_state = torch.get_rng_state()
    values = evaluation_hook(config, net, CPU)(0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert state_digest(net) == before
    assert [part.training for part in net.modules()] == modes
    TargetStatistics(config, config.TEST.INPUT_SIZE_TARGET).reestimate(other, CPU)
    assert state_digest(other) != before
    dataset = evaluation_data(config)
    expected = summary(evaluate.confusion(other, dataset, CPU), dataset.classes)
    assert values["test_miou"] == expected["miou"]


def test_every_process_estimates_on_all_images(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = build_network(config)
    other = copy.deepcopy(net)
    TargetStatistics(config).reestimate(net, CPU)
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    TargetStatistics(config).reestimate(other, CPU)
    assert state_digest(other) == state_digest(net)


def test_the_row_names_the_statistics() -> None:
    result = {"selected": "last", "iteration": 6, "batch_norm": {"split": "train"}}
    assert row_name(result) == "last model_6, batch norm: target's train images"
    assert row_name({"selected": "last", "iteration": 6}) == "last model_6"


def test_default_keys_leave_digests_of_earlier_runs_unchanged() -> None:
    config = load_config("ep1:isl")
    before = config_digest(config)
    config.TRAIN.RESTORE_BN = "target"
    assert config_digest(config) != before
    config.TRAIN.RESTORE_BN, config.TEST.BN_STATISTICS = "checkpoint", "target"
    assert config_digest(config) == before
