"""scripts/bench.py: the cheapest sections, the JSON record, the plot, one-line errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import bench
from advent.config.loading import load_config
from advent.config.schema import Precision
from advent.evaluation.predictor import Predictor
from daf.teacher import SelfTrainingState
from performance import networks, sections
from performance.scaling import scaling
from performance.straightforward import Straightforward, StraightforwardScoring
from performance.timing import alternate, peak_memory


def test_cheap_sections_write_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.json"
    assert bench.main(["--only", "labels", "machine", "--rounds", "1", "--device", "cpu", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"matrix product (2048|256), bf16", text)
    record = json.loads(out.read_text())
    assert set(record["results"]) == {"labels", "machine"}
    (label,) = record["results"]["labels"]
    assert label["share"] < 0.01  # a pseudo label takes at most a hundredth of the int64 array in the authors' code
    assert all(row["low"] <= row["seconds"] <= row["high"] for row in record["results"]["machine"])


def test_variants_alternate() -> None:
    seen: list[str] = []
    times = alternate({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2)
    assert seen == ["a", "b"] * 3
    assert times["a"].runs == 2


def test_the_straightforward_step_is_the_same_step() -> None:
    small = [
        "MODEL.LAYERS=[1,1,1,1]",
        "MODEL.WIDTH=8",
        "TRAIN.INPUT_SIZE_SOURCE=[64,48]",
        "TRAIN.INPUT_SIZE_TARGET=[64,48]",
    ]
    benchmark = networks.bench("ep2_low_dg", torch.device("cpu"), small)
    straightforward = Straightforward(benchmark)
    before = {name: value.clone() for name, value in benchmark.learner.net.state_dict().items()}
    expected, losses = straightforward.step(), benchmark.learner.update(0, benchmark.source, benchmark.target)
    names = ("seg", "depth", "adv", "d_source", "d_target")
    assert [float(losses[name]) for name in names] == pytest.approx(expected, rel=1e-4)
    theirs = straightforward.net.state_dict()
    for name, value in benchmark.learner.net.state_dict().items():
        if value.is_floating_point():
            moved, expected_move = value - before[name], theirs[name] - before[name]
            assert (moved - expected_move).norm() <= 2e-2 * moved.norm() + 1e-7, name


SMALL = ["MODEL.LAYERS=[1,1,1,1]", "MODEL.WIDTH=8", "TEST.INPUT_SIZE_TARGET=[64,48]"]


def test_the_straightforward_scoring_gives_the_same_counts() -> None:
    torch.manual_seed(1)
    net = networks.random_network(load_config("ep1:daf", ["TRAIN.RESTORE_FROM=null", *SMALL])).eval()
    image, label = 50 * torch.randn(1, 3, 48, 64), torch.randint(0, 16, (96, 128)).to(torch.uint8)
    label[:5] = 255
    expected = StraightforwardScoring(net, 16)(image, label)
    actual = sections.score_image(Predictor([net]), image, label)
    assert expected.sum() == actual.sum() == 91 * 128
    assert (actual != expected).mean() < 0.05  # a pixel of two equal classes may differ by rounding
    assert abs(actual - expected).sum() <= 4


def test_a_step_of_self_training_is_one_with_a_teacher_that_follows() -> None:
    small = ["MODEL.ENCODER=timm:vit_tiny_patch16_224", "MODEL.HEAD_WIDTH=[8,16]", "MODEL.ENCODER_WEIGHTS=null"]
    small += [f"{key}=[56,56]" for key in ("AUGMENT.CROP", "TRAIN.PREDICT_CROP", "TRAIN.PREDICT_STRIDE")]
    setup = networks.bench("ep1_modern:self_training", torch.device("cpu"), [*small, "SELF_TRAINING.MASK_BLOCK=8"])
    state = setup.learner.context.state
    assert isinstance(state, SelfTrainingState)
    student, teacher = (next(net.parameters()).detach() for net in (setup.learner.net, state.teacher))
    student.add_(1.0)
    before = teacher.clone()
    losses = setup.step()
    assert isinstance(losses, dict)
    assert float(losses["mix"]) > 0
    moved = (teacher - before) / (student - before)
    assert 0 < float(moved.mean()) < 1  # the average, not a copy


@pytest.mark.parametrize(("chosen", "kinds"), [("bf16", ["fp32", "bf16"]), ("off", ["fp32"])])
def test_evaluation_is_measured_as_whole_images(chosen: str, kinds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "fastest_precision", lambda *_: Precision(chosen, "measured"))  # type: ignore[arg-type]
    rows = sections.evaluation(torch.device("cpu"), 1, overrides=SMALL, label_hw=(96, 128))
    by_name = {row["what"]: row for row in rows}
    images = [name for name in by_name if name.startswith("one image")]
    assert images == ["one image, straightforward, fp32", *(f"one image, ours, {kind}" for kind in kinds)]
    base, best = by_name[images[0]], by_name[images[-1]]
    assert best["times"] == pytest.approx(base["seconds"] / best["seconds"])
    assert by_name[f"  auto: {kinds[-1]} (measured)"]["times"] == best["times"]
    assert by_name["forward pass, fp32"]["share"] == 1.0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_memory_counts_simultaneous_tensors() -> None:
    def work() -> None:
        kept = [torch.ones(2**22) for _ in range(8)]  # 128 MiB
        del kept
        torch.ones(2**22)

    peak = peak_memory(work, torch.device("cpu"))
    assert peak is not None
    assert 0.9 * 2**27 < peak < 1.3 * 2**27


def test_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"what": f"{part}, fp32", "seconds": 1.0}
        for part in ("step", "  network's two passes", "  discriminator", "  everything else")
    ]
    scoring = [{"what": "one image, ours, fp32", "seconds": 1.0}, {"what": "  auto: fp32 (measured)", "times": 1.0}]
    scoring += [{"what": "ISL: upsampling, threshold, label", "seconds": 0.1}]
    record = {"processor": "a processor", "threads": 2, "results": {"step": rows, "evaluation": scoring}}
    (tmp_path / "b.json").write_text(json.dumps(record))
    assert bench.main(["--plot", str(tmp_path / "b.json"), "--out", str(tmp_path / "b.png")]) == 0
    assert Image.open(tmp_path / "b.png").size[0] > 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "stepp"], "did you mean step"),
        (["--rounds", "0"], "--rounds"),
        (["--rounds", "many"], "--rounds"),
        (["--device", "tpu"], "--device tpu"),
        (["--plot", "nowhere.json"], "--out"),
        (["--plot", "nowhere.json", "--out", "x.png"], "nowhere.json"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = bench.main(arguments)
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_scaling_from_one_process_to_two() -> None:
    small = [
        "MODEL.LAYERS=[1,1,1,1]",
        "MODEL.WIDTH=8",
        "TRAIN.INPUT_SIZE_SOURCE=[64,48]",
        "TRAIN.INPUT_SIZE_TARGET=[64,48]",
    ]
    single, _, pair, _, message = scaling(torch.device("cpu"), 1, overrides=small)
    assert pair["times"] == pytest.approx(2 * single["seconds"] / pair["seconds"])
    assert 0 < message["seconds"] < pair["seconds"]
    assert message["bytes"] > 1e6  # the gradients of the discriminator alone are larger
