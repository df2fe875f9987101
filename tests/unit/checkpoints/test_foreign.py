"""Checkpoints of other projects are refused by name. The names are those of their code; the tensors are empty."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import checkpoint
from advent.checkpoints.foreign import foreign_network
from advent.checkpoints.formats import open_checkpoint
from advent.checkpoints.loading import load_network, load_pretrained
from advent.errors import CheckpointError

MIT = ["backbone.patch_embed1.proj.weight", "backbone.block1.0.attn.q.weight", "backbone.norm4.bias"]
DAFORMER_HEAD = [
    "conv_seg.weight",
    "embed_layers.0.proj.weight",
    "fuse_layer.aspp_modules.1.depthwise_conv.conv.weight",
    "fuse_layer.bottleneck.bn.running_mean",
]
SEGMENTOR = [*MIT, *(f"decode_head.{name}" for name in DAFORMER_HEAD)]
HRDA_SEGMENTOR = [
    *MIT,
    *(f"decode_head.{part}.{name}" for part in ("head", "scale_attention") for name in DAFORMER_HEAD),
]
VFM_UDA = [
    *(f"encoder.{name}" for name in ("cls_token", "mask_token", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight")),
    "upscale.0.weight",
    "out.weight",
]
VFM_UDA_PLUSPLUS = [*VFM_UDA, "encoder.spm.stem.0.weight", "encoder.interactions.0.injector.gamma"]
MASKED = "uda = dict(\n    type='DACS',\n    mask_mode='separatetrgaug',\n    mask_alpha='same')\n"
UNMASKED = "uda = dict(\n    type='DACS',\n    alpha=0.999,\n    mask_mode=None)\n"


def of_uda(names: list[str]) -> list[str]:
    """Names in a file of the self-training wrapper: student, teacher and ImageNet network."""
    return [f"{part}.{name}" for part in ("model", "ema_model", "imnet_model") for name in names]


def of_lightning(names: list[str]) -> list[str]:
    return [*(f"{part}.{name}" for part in ("network", "network_ema") for name in names), "metrics.0.confmat"]


def saved(path: Path, names: list[str], **others: object) -> Path:
    torch.save({"state_dict": {name: torch.zeros(1) for name in names}, **others}, path)
    return path


CASES = [
    ("DAFormer's network", of_uda(SEGMENTOR), UNMASKED, "github.com/lhoyer/DAFormer"),
    ("DAFormer's network, or MIC's on DAFormer", of_uda(SEGMENTOR), "", "github.com/lhoyer/DAFormer"),
    ("DAFormer's network", SEGMENTOR, UNMASKED, "github.com/lhoyer/DAFormer"),
    ("HRDA's network", of_uda(HRDA_SEGMENTOR), UNMASKED, "github.com/lhoyer/HRDA"),
    ("HRDA's network, or MIC's on HRDA", of_uda(HRDA_SEGMENTOR), "", "github.com/lhoyer/HRDA"),
    ("MIC's network (on HRDA)", of_uda(HRDA_SEGMENTOR), MASKED, "github.com/lhoyer/MIC"),
    ("MIC's network (on DAFormer)", of_uda(SEGMENTOR), '{"uda": {"mask_mode": "separatetrgaug"}}', "lhoyer/MIC"),
    (
        "MIC's network (on DAFormer)",
        [*of_uda(SEGMENTOR), *(f"mic.teacher.ema_model.{name}" for name in SEGMENTOR)],
        "",
        "github.com/lhoyer/MIC",
    ),
    ("VFM-UDA's network", of_lightning(VFM_UDA), "", "github.com/tue-mps/vfm-uda)"),
    ("VFM-UDA++'s network", of_lightning(VFM_UDA_PLUSPLUS), "", "github.com/tue-mps/vfm-uda-plusplus"),
    ("a network of mmsegmentation", [*MIT, "decode_head.linear_fuse.conv.weight"], "", "--cfg gta5_modern"),
]


@pytest.mark.parametrize(("name", "names", "config", "advice"), CASES)
def test_another_projects_network_is_refused_in_one_line(
    tmp_path: Path, name: str, names: list[str], config: str, advice: str
) -> None:
    meta = {"meta": {"config": config, "CLASSES": ("road",), "PALETTE": [[128, 64, 128]]}} if config else {}
    file = saved(tmp_path / "latest.pth", names, **meta)
    for load in (load_network, lambda net, path: load_pretrained(net, path, (0.0, 0.0, 0.0))):
        with pytest.raises(CheckpointError) as error:
            load(torch.nn.Linear(1, 1), file)
        assert str(error.value).startswith(f"{file}: holds {name}: ")
        assert advice in str(error.value)
        assert "not part of this project" in str(error.value)
        assert "\n" not in str(error.value)


def test_a_plain_state_dict_is_recognised_too(tmp_path: Path) -> None:
    torch.save({f"module.{name}": torch.zeros(1) for name in of_uda(HRDA_SEGMENTOR)}, tmp_path / "x.pth")
    info = open_checkpoint(tmp_path / "x.pth")
    assert str(info) == "HRDA's network, or MIC's on HRDA"


def test_the_tool_describes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "x.pth", of_uda(SEGMENTOR), meta={"config": UNMASKED}, optimizer={"state": {}})
    assert checkpoint.main([str(file)]) == 0
    text = capsys.readouterr().out
    assert "format     state_dict wrapper; beside it: meta, optimizer" in text
    assert "network    DAFormer's network" in text
    assert "loads with nothing in this project: its encoder and head are mmsegmentation's" in text


@pytest.mark.parametrize(
    "names",
    [
        ["encoder.blocks.0.attn.qkv.weight", "head.classifier.weight", "head.embed.0.weight"],  # this project's
        ["layer1.0.conv1.weight", "layer6.conv2d_list.0.weight"],
        ["backbone.conv1.weight"],
        ["network.0.weight"],
    ],
)
def test_other_names_are_nobodys(names: list[str]) -> None:
    assert foreign_network(names) is None
