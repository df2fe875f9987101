"""DAF's network with a fusion head: depth, guidance, losses, checkpoints, inference and export."""

import math

import pytest
import torch

import checkpoint
from advent.build import build_network
from advent.checkpoints.formats import open_checkpoint
from advent.checkpoints.loading import load_network
from advent.config.loading import default_config, dump_config, load_config
from advent.errors import CheckpointError, ConfigError
from advent.methods.registry import find_network
from advent.model.timm_names import matching_backbones
from advent.training.data_parallel import accumulated_step
from daf import load_model, predict
from daf.loss import log_l1
from daf.methods import segmentation_and_depth_losses, segmentation_and_log_depth_losses
from daf.model.deeplabv2_depth import positive_depth
from daf.model.fusion_depth import FusedDepthHead
from helpers.small_learner import batches, small_learner

LEAST = 65536 / 8001
FUSION = {"HEAD": "fusion", "HEAD_WIDTH": [8, 16], "DEPTH_SIZE": None}
LOG = {**FUSION, "DEPTH_OUTPUT": "log"}
TINY = ["MODEL.LAYERS=[1,1,1,1]", "MODEL.WIDTH=8", "TEST.INPUT_SIZE_TARGET=[64,48]"]
OPTIONS = ["MODEL.HEAD=fusion", "MODEL.HEAD_WIDTH=[8,16]", "MODEL.DEPTH_SIZE=null", "MODEL.DEPTH_OUTPUT=log"]


def with_depth():
    source, target = batches()
    generator = torch.Generator().manual_seed(5)
    source["depth"] = LEAST + 800 * torch.rand(2, 48, 64, generator=generator)
    source["depth_known"] = torch.rand(2, 48, 64, generator=generator) < 0.7
    return source, target


def test_positive_depth_by_hand():
    outputs = torch.tensor([-200.0, 0.0, math.log(99.0), 500.0], dtype=torch.float64, requires_grad=True)
    depth = positive_depth(outputs)
    torch.testing.assert_close(depth, torch.tensor([LEAST, 2 * LEAST, 100 * LEAST, 65536.0], dtype=torch.float64))
    softplus = torch.nn.functional.softplus(outputs[:3])
    torch.testing.assert_close(depth[:3], 65536 / 8001 * softplus.exp())
    depth.sum().backward()
    assert torch.isfinite(outputs.grad).all()


def test_log_l1_by_hand():
    # Errors of the logarithm: log 2 (linear), 0.05 (quadratic), 0 (both below 65536 / 8001), and an unknown pixel.
    target = torch.tensor([[[100.0, 100.0, 1.0, 0.0]]])
    pred = torch.tensor([[[[200.0, 100 * math.exp(0.05), -3.0, 9.0]]]])
    known = torch.tensor([[[True, True, True, False]]])
    total = (math.log(2) - 0.05) + 0.05**2 / 0.2
    torch.testing.assert_close(log_l1(pred, target, known), torch.tensor(total / 3))
    torch.testing.assert_close(log_l1(pred, target, known, count=torch.tensor(6)), torch.tensor(total / 6))
    assert log_l1(pred, target, known & False) == 0
    with pytest.raises(ValueError, match="prediction is"):
        log_l1(pred[..., :2], target)


def test_log_l1_is_relative():
    near, far = torch.tensor([[[6000.0]]]), torch.tensor([[[20.0]]])
    torch.testing.assert_close(log_l1(1.3 * near, near), log_l1(1.3 * far, far))


def test_guidance_starts_as_the_identity_and_log_depth_at_500():
    net = small_learner("DAF", "DeepLabv2_depth", model=LOG).net  # the batch norms' own statistics mean nothing yet
    with torch.no_grad():
        z = net.head.fuse(net.encode(batches()[0]["image"]))
        depth, guidance = net.depth_head(z)
    assert 0.5 < float(guidance.min()) <= float(guidance.max()) < 1.5
    assert 350 < float(depth.mean()) < 700
    assert depth.shape == (2, 1, *z.shape[-2:])


def test_logits_are_the_classifier_of_the_guided_features():
    net = small_learner("DAF", "DeepLabv2_depth", model=LOG).net.eval()
    images = batches()[0]["image"]
    z = net.head.fuse(net.encode(images))
    depth, guidance = net.depth_head(z)
    aux, logits, predicted = net(images)
    assert aux is None
    torch.testing.assert_close(logits, net.head.classifier(z * guidance))
    torch.testing.assert_close(predicted, depth)


def test_depth_size_and_attention_are_honoured():
    net = small_learner("DAF", "DeepLabv2_depth", model={**FUSION, "DEPTH_SIZE": [20, 12], "ATTENTION": False}).net
    assert net(batches()[0]["image"])[2].shape == (2, 1, 12, 20)
    assert not [name for name in net.state_dict() if "attention" in name]
    assert any("attention" in name for name in FusedDepthHead(16).state_dict())


@pytest.mark.parametrize("model", [FUSION, LOG], ids=["linear", "log"])
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_adversarial_step_changes_encoder_head_and_depth_head(model, amp):
    loss = {"DEPTH_LOSS": "log_l1", "LAMBDA_DEPTH_MAIN": 0.1} if model is LOG else {}
    learner = small_learner("DAF", "DeepLabv2_depth", model=model, BACKBONE_UPDATES="once", AMP=amp, **loss)
    before = {name: p.detach().clone() for name, p in learner.net.named_parameters() if p.requires_grad}
    values = learner.update(0, *with_depth())
    assert all(torch.isfinite(value) for value in values.values())
    changed = {n for n, p in learner.net.named_parameters() if n in before and not torch.equal(before[n], p)}
    assert before.keys() - changed <= {"conv1.weight"} if amp == "bf16" else changed == before.keys()
    assert {name.split(".")[0] for name in changed} >= {"layer1", "layer4", "head", "depth_head"}


def test_adversarial_loss_alone_trains_the_depth_output():
    """The discriminator's map holds the target's depth, so the depth head learns without depth labels."""
    learner = small_learner("DAF", "DeepLabv2_depth", model=LOG, BACKBONE_UPDATES="once")
    before = learner.net.depth_head.output.weight.detach().clone()
    learner.update(0, *batches())
    assert not torch.equal(before, learner.net.depth_head.output.weight)


@pytest.mark.parametrize("head", ["aspp", "fusion"])
def test_log_loss_of_two_parts_has_the_gradients_of_the_whole_batch(head):
    model = {**LOG, "HEAD": head, "DROPOUT": 0.0}
    gradients = []
    for parts in (1, 2):
        learner = small_learner("SourceOnly", "DeepLabv2_depth", model=model, DEPTH_LOSS="log_l1")
        learner.net.double().eval()  # batch statistics are those of each part
        source = {k: v.double() if v.is_floating_point() else v for k, v in with_depth()[0].items()}
        sources = [{k: v[i::parts] for k, v in source.items()} for i in range(parts)]
        losses = accumulated_step(learner.context, [learner.net], learner.optimizers, sources, [None] * parts)
        gradients.append([losses["depth"], *(p.grad for p in learner.net.parameters() if p.grad is not None)])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_the_config_chooses_the_depth_loss():
    config = load_config(None, ["TRAIN.DEPTH_LOSS=log_l1", "MODEL.DEPTH_OUTPUT=log"])
    assert find_network(config).supervised is segmentation_and_log_depth_losses
    assert find_network(default_config()).supervised is segmentation_and_depth_losses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["TRAIN.DEPTH_LOSS=log_l1"], r"set MODEL.DEPTH_OUTPUT=log"),
        (["MODEL.NAME=DeepLabv2_depth_DADA", "MODEL.HEAD=fusion"], r"MODEL.HEAD: fusion: DADA's network has aspp only"),
        (["MODEL.NAME=DeepLabv2_depth_DADA", "MODEL.DEPTH_OUTPUT=log"], r"MODEL.DEPTH_OUTPUT: log: DADA's network"),
    ],
)
def test_combinations_that_do_not_work_are_refused_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        build_network(load_config(None, [*TINY, *options]))
    assert "\n" not in str(error.value)


def saved(folder, *options, beside=True):
    config = load_config(None, [*TINY, *options])
    torch.manual_seed(0)
    torch.save(build_network(config).state_dict(), folder / "model_1.pth")
    if beside:
        (folder / "config.yml").write_text(dump_config(config))
    return folder / "model_1.pth"


@pytest.mark.parametrize("name", ["DeepLabv2", "DeepLabv2_depth"])
def test_checkpoint_is_recognised(tmp_path, name, capsys):
    file = saved(tmp_path, f"MODEL.NAME={name}", *OPTIONS, beside=False)
    info = open_checkpoint(file)
    assert (info.network, info.head, info.classes) == (name, "fusion", 16)
    assert info.settings["MODEL.HEAD"] == "fusion"
    assert info.settings["MODEL.HEAD_WIDTH"] == "[8,16]"
    assert checkpoint.main([str(file)]) == 0
    said = capsys.readouterr().out
    assert "MODEL.HEAD=fusion MODEL.HEAD_WIDTH=[8,16]" in said
    assert "MODEL.HEAD_DILATIONS and MODEL.DEPTH_OUTPUT as in its training" in said
    saved(tmp_path, f"MODEL.NAME={name}", *OPTIONS)
    assert checkpoint.main([str(file)]) == 0
    assert f"--cfg {tmp_path / 'config.yml'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["MODEL.HEAD=fusion", "MODEL.HEAD_WIDTH=[8,16]"]),
        (["MODEL.HEAD=fusion", "MODEL.HEAD_WIDTH=[8,24]"], ["set MODEL.HEAD_WIDTH=[8,16]"]),
        (["MODEL.NAME=DeepLabv2", "MODEL.HEAD=fusion", "MODEL.HEAD_WIDTH=[8,16]"], ["set MODEL.NAME=DeepLabv2_depth"]),
    ],
)
def test_a_mismatch_says_what_to_set(tmp_path, options, words):
    file = saved(tmp_path, *OPTIONS)
    with pytest.raises(CheckpointError) as error:
        load_network(build_network(load_config(None, [*TINY, *options])), file)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_an_aspp_checkpoint_asks_for_the_aspp_head(tmp_path):
    file = saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"MODEL\.HEAD=aspp"):
        load_network(build_network(load_config(None, [*TINY, *OPTIONS])), file)


def test_inference_and_export(tmp_path):
    model = load_model(saved(tmp_path, *OPTIONS), device="cpu")
    image = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    prediction = predict(model, image, maps=True)
    assert prediction.classes.shape == prediction.depth.shape == prediction.depth_aware.shape == (50, 70)
    assert prediction.depth.min() >= LEAST
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from daf.export import export_onnx

    errors = export_onnx(model, tmp_path / "x.onnx", tmp_path / "model_1.pth")
    assert len(errors) == 4
    assert max(errors.values()) <= 1e-4


def test_a_vit_predicts_and_is_recognised_but_not_exported(tmp_path):
    vit = ["MODEL.ENCODER=timm:test_vit", "MODEL.LAYERS=[3,4,23,3]", "MODEL.WIDTH=64"]
    model = load_model(saved(tmp_path, *OPTIONS, *vit), device="cpu")
    image = torch.randint(0, 256, (50, 70, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    assert predict(model, image).classes.shape == (50, 70)
    info = open_checkpoint(tmp_path / "model_1.pth")
    assert (info.network, info.encoder, info.head) == ("DeepLabv2_depth", "timm", "fusion")
    assert matching_backbones(info.weights, ["test_vit3", "test_vit"]) == ["timm:test_vit"]
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from daf.export import export_onnx

    with pytest.raises(ConfigError, match="ViTs cannot be exported") as error:
        export_onnx(model, tmp_path / "x.onnx", tmp_path / "model_1.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.onnx").exists()
