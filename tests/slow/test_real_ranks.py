"""Real torchrun with killed processes: four ranks, fifty steps, restarts, signals, spawned workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers import ddp_equivalence, kill_resume_stress, tiny_data
from helpers.process_pool import ROOT, ProcessPool, torchrun


@pytest.fixture(scope="module")
def four():
    pool = ProcessPool(4)
    yield pool
    pool.close()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["AdvEnt", "DAF", "ISL", "IDA"])
def test_four_processes_are_one_batch_of_four(four, method):
    expected = four.alone(ddp_equivalence.train, method, 4)
    results = [
        four.run(ddp_equivalence.in_process_group, "train", method, 4)[0],
        four.alone(ddp_equivalence.train, method, 4, 4),
    ]
    for actual in results:
        for key in ("gradients", "weights"):
            assert ddp_equivalence.largest_difference(actual, expected, key) < 1e-10
        assert ddp_equivalence.loss_difference(actual, expected) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("method", ["DAF", "IDA"])
def test_weights_are_identical_after_fifty_steps(four, method):
    results = four.run(ddp_equivalence.in_process_group, "train", method, 4, 1, True, 50)
    for other in results[1:]:
        for key in ("weights", "statistics"):
            assert all(torch.equal(tensor, other[key][name]) for name, tensor in results[0][key].items())


def start(
    data: Path,
    fault: str,
    rank: int,
    iteration: int,
    *options: str,
    script: str = "train",
    cfg: str = "quick:daf",
    restarts: int = 0,
    processes: int = 2,
    **environment: str,
):
    line = tiny_data.command_line(data, cfg, *tiny_data.LONG, *options)
    flags = [f"--max-restarts={restarts}"]
    arguments = [fault, str(rank), str(iteration), script, *line]
    return torchrun("tests/helpers/fault_injection.py", arguments, processes, *flags, **environment)


def wait_for_end(run, seconds: float = 600) -> tuple[int, str]:
    try:
        said = run.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        run.terminate()  # SIGTERM, not SIGKILL: torchrun then ends its processes
        said = run.communicate(timeout=90)[1]
        raise AssertionError(f"it hangs: {said}") from None
    return run.returncode, said


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [("train", "quick:daf", "daf"), ("train_isl", "quick:isl", "isl"), ("train_intra", "quick:ida", "ida")],
    ids=lambda script: script[2],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_restarted_to_the_same_weights(trained, tmp_path, script, rank):
    name, cfg, stage = script
    roots = [shutil.copytree(trained, tmp_path / which) for which in ("undisturbed", "disturbed")]
    for root in roots:
        shutil.rmtree(root / "exp/quick" / stage)
    assert wait_for_end(start(roots[0], "none", 0, 0, script=name, cfg=cfg))[0] == 0
    note = tmp_path / "iterations"
    code, said = wait_for_end(start(roots[1], "kill", rank, 8, script=name, cfg=cfg, restarts=1, NOTE=str(note)))
    assert code == 0, said
    begun = [int(line) for line in note.read_text().split()]
    assert begun[:8] == list(range(8))
    assert begun[-1] == max(begun)
    assert begun[8:] in ([7, *range(8, begun[-1] + 1)], [8, *range(7, begun[-1] + 1)])  # from resume.pth of iteration 6
    for file in sorted((roots[0] / "exp/quick" / stage).glob("model_*.pth")):
        other = roots[1] / "exp/quick" / stage / file.name
        assert file.read_bytes() == other.read_bytes(), file.name
    contents = [kill_resume_stress.contents(root / "exp/quick" / stage) for root in roots]
    assert contents[0]["metrics.jsonl"] == contents[1]["metrics.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "cause"), [("kill", "Signal 9 (SIGKILL)"), ("raise", "ZeroDivisionError: a bug of")])
def test_death_of_one_process_ends_all(data, how, cause):
    began = time.monotonic()
    code, said = wait_for_end(start(data, how, 1, 4))
    assert code != 0
    assert time.monotonic() - began < 120
    assert cause in said
    assert "Root Cause" in said
    assert said.count("ended or does not respond") <= 1
    assert not (data / "exp/quick/daf/run.lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("who", ["torchrun", "one process"])
def test_a_signal_stops_all_after_one_iteration(data, tmp_path, who):
    note = tmp_path / "iterations"
    if who == "torchrun":
        run = start(data, "none", 0, 0, "TRAIN.EARLY_STOP=40", NOTE=str(note))
        while not note.exists() or len(note.read_text().split()) < 5:
            time.sleep(0.02)
            assert run.poll() is None
        os.kill(run.pid, signal.SIGTERM)
    else:
        run = start(data, "term", 1, 5, "TRAIN.EARLY_STOP=40", NOTE=str(note))
    code, said = wait_for_end(run)
    assert code != 0
    assert said.count("stopped by SIGTERM; continue with: torchrun --nproc_per_node=2 train.py") == 1
    last = int(note.read_text().split()[-1])
    state = torch.load(data / "exp/quick/daf/resume.pth", weights_only=True)
    assert state["iteration"] == last + 1
    if who != "torchrun":
        assert last == 5
    assert wait_for_end(start(data, "none", 0, 0, "TRAIN.EARLY_STOP=40", "--resume"))[0] == 0
    assert wait_for_end(start(data, "none", 0, 0, "TRAIN.EARLY_STOP=40", "--exp-suffix=whole"))[0] == 0
    folder, reference = data / "exp/quick/daf", data / "exp/quick_whole/daf"
    for file in ("model_39.pth", "metrics.jsonl"):
        assert (folder / file).read_bytes() == (reference / file).read_bytes()


@pytest.mark.slow
def test_restart_ignores_overwrite(data):
    """A restart resumes the run of the same torchrun; it does not resume earlier results."""
    assert wait_for_end(start(data, "none", 0, 0))[0] == 0
    assert wait_for_end(start(data, "kill", 1, 8, "--overwrite", "TRAIN.POWER=0.5", restarts=1))[0] == 0
    assert "POWER: 0.5" in (data / "exp/quick/daf/config.yml").read_text()
    record = json.loads((data / "exp/quick/daf/provenance.json").read_text())
    assert [resumption["iteration"] for resumption in record["continued"]] == [7]


def in_container(command: list[str]) -> tuple[int, str]:
    """Run a command as in a new container: first process of its PID namespace, fixed host name."""
    shell = ["sh", "-c", 'hostname localhost && exec "$@"', "sh"]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "--uts", *shell, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def containers_work() -> bool:
    return shutil.which("unshare") is not None and in_container(["true"])[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    "rendezvous",
    [["--master-port=29617"], ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:29618"]],
    ids=["static", "c10d"],
)
def test_a_second_start_in_an_equal_container_is_not_a_restart(data, rendezvous, processes):
    """Host, process ids and run id (`none`) repeat. The second start once trained nothing despite --overwrite."""
    if not containers_work():
        pytest.skip("needs Linux, unshare and the right to make namespaces")
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", *rendezvous]
    records = []
    for power in ("0.9", "0.5"):
        line = tiny_data.command_line(data, "quick:daf", "--overwrite", f"TRAIN.POWER={power}")
        code, said = in_container([*launcher, "train.py", *line])
        assert code == 0, said
        assert f"POWER: {power}" in (data / "exp/quick/daf/config.yml").read_text()
        records.append(json.loads((data / "exp/quick/daf/provenance.json").read_text()))
    assert records[0]["launcher"] != records[1]["launcher"]
    assert all("continued" not in record for record in records)
    code, said = in_container([*launcher, "--max-restarts=1", "train.py", *tiny_data.command_line(data, "quick:daf")])
    assert code != 0  # a restart does not resume results that its own first start refused
    assert "holds the results of an earlier run" in said


@pytest.mark.slow
def test_spawned_workers(data):
    """Spawned workers (macOS, Windows) import everything again and must not act as a rank."""
    for suffix, fault, workers in (("fork", "none", 0), ("spawn", "spawn", 2)):
        run = start(data, fault, 0, 0, f"--exp-suffix={suffix}", f"NUM_WORKERS={workers}", "TRAIN.EARLY_STOP=6")
        code, said = wait_for_end(run)
        assert code == 0, said
    forked, spawned = (data / f"exp/quick_{suffix}/daf/model_6.pth" for suffix in ("fork", "spawn"))
    assert forked.read_bytes() == spawned.read_bytes()
