"""scripts/bench.py: the cheapest sections, the JSON record, the plot, one-line errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import bench
from performance import networks
from performance.scaling import scaling
from performance.straightforward import Straightforward
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
    record = {"processor": "a processor", "threads": 2, "results": {"step": rows}}
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
