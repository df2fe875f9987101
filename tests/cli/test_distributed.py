"""Distributed runs: two processes give the gradients, files and scores of one; an error is printed once."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advent.checkpoints.run_dir import RunDir
from advent.cli import config_from_args, make_parser
from advent.dataset.loader import InfiniteBatchSampler, sequential_batches
from advent.evaluation import stage as evaluation
from advent.runtime import distributed
from advent.runtime.rendezvous import fresh_store
from helpers import ddp_equivalence, kill_resume_stress, tiny_data
from helpers.process_pool import ProcessPool, run_script, torchrun

EXACT = 1e-10


@pytest.fixture(scope="module")
def two():
    """Pool of two processes; a test that leaves them out of step makes the rest of this module fail."""
    pool = ProcessPool(2)
    yield pool
    pool.close()


SHORT = ("AdvEnt", "DAF", "ISL", "IDA", "SelfTraining")
METHODS = [
    method if method in SHORT else pytest.param(method, marks=pytest.mark.slow) for method in ddp_equivalence.METHODS
]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_and_two_micro_batches_are_one_batch_of_two(two, method):
    expected = two.alone(ddp_equivalence.train, method, 2)
    both = two.run(ddp_equivalence.in_process_group, "train", method, 2)
    accumulated = two.alone(ddp_equivalence.train, method, 2, 2)
    for actual in (both[0], accumulated):
        for key in ("gradients", "weights", "statistics"):
            assert ddp_equivalence.largest_difference(actual, expected, key) < EXACT
        assert ddp_equivalence.loss_difference(actual, expected) < EXACT
    for name, weight in both[0]["weights"].items():
        assert torch.equal(weight, both[1]["weights"][name])


@pytest.mark.parametrize("method", ["DAF", "ISL"])
def test_processes_equal_micro_batches_with_batch_statistics(two, method):
    """Batch norm in training mode: statistics per micro-batch, running statistics averaged over micro-batches."""
    both = two.run(ddp_equivalence.in_process_group, "train", method, 4, 1, True)
    accumulated = two.alone(ddp_equivalence.train, method, 4, 2, True)
    mixed = two.run(ddp_equivalence.in_process_group, "train", method, 4, 2, True)
    quarters = two.alone(ddp_equivalence.train, method, 4, 4, True)
    for actual, expected in ((both[0], accumulated), (mixed[0], quarters)):
        for key in ("gradients", "weights", "statistics"):
            assert ddp_equivalence.largest_difference(actual, expected, key) < 1e-8  # batch norm amplifies rounding
    for key in ("weights", "statistics"):
        for name, tensor in both[0][key].items():
            assert torch.equal(tensor, both[1][key][name])


def wrapped(method: str) -> bool:
    """Whether DistributedDataParallel under `no_sync` gives bit-identical gradients to no wrapper."""
    from torch.nn.parallel import DistributedDataParallel

    gradients = []
    with distributed.process_group():
        for wrap in (False, True):
            learner = ddp_equivalence.make_learner(method)
            source, target = (
                ddp_equivalence.cut(b, distributed.rank(), distributed.rank() + 1)
                for b in ddp_equivalence.batches(method, 0, 2)
            )
            if not wrap:
                learner.method.step(learner.context, source, target)
            else:
                net = DistributedDataParallel(learner.net)
                discriminator = DistributedDataParallel(learner.context.discriminators["main"])
                learner.context.net, learner.context.discriminators = net, torch.nn.ModuleDict({"main": discriminator})
                with net.no_sync(), discriminator.no_sync():
                    learner.method.step(learner.context, source, target)
                learner.context.discriminators = torch.nn.ModuleDict({"main": discriminator.module})
            gradients.append({n: p.grad for n, p in ddp_equivalence.parameters(learner) if p.grad is not None})
    plain, others = gradients
    return plain.keys() == others.keys() and all(torch.equal(plain[n], others[n]) for n in plain)


def test_distributed_data_parallel_would_add_nothing(two):
    assert two.run(wrapped, "DAF") == [True, True]


def poisoned(rank_: int) -> tuple[bool, bool]:
    """(all losses finite, weights changed) of a step in which the image of rank `rank_` contains a NaN."""
    with distributed.process_group():
        learner = ddp_equivalence.make_learner("AdvEnt", statistics=True)
        before = [tensor.clone() for tensor in learner.net.state_dict().values()]
        source, target = ddp_equivalence.batches("AdvEnt", 0, 1)
        if distributed.rank() == rank_:
            source["image"][0, 0, 0, 0] = float("nan")
        values = learner.update(0, source, target)
        moved = any(not torch.equal(a, b) for a, b in zip(before, learner.net.state_dict().values(), strict=True))
        return all(bool(torch.isfinite(value)) for value in values.values()), moved


def test_nonfinite_loss_on_one_process_skips_the_step_on_all(two):
    assert two.run(poisoned, 1) == [(False, False)] * 2
    assert two.run(poisoned, 7) == [(True, True)] * 2


def test_restart_gets_a_fresh_store():
    """torchrun keeps its store over restarts, with keys of dead processes; every start needs a fresh store."""
    store, names = torch.distributed.HashStore(), []
    for start in range(3):
        with ThreadPoolExecutor(3) as pool:  # rank 2 comes first, rank 0 last
            jobs = [pool.submit(fresh_store, store, rank, 3, timedelta(seconds=20)) for rank in (2, 1, 0)]
            rooms = [job.result() for job in jobs]
        rooms[0].set("address", f"of start {start}")
        assert [room.get("address").decode() for room in rooms] == [f"of start {start}"] * 3
        names.append(rooms)
    assert names[0][1].get("address") == b"of start 0"


@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 9))
def test_shards_contain_every_image_once(images, batch, processes):
    batches = sequential_batches(images, batch)
    shares = [batches[rank::processes] for rank in range(processes)]
    assert distributed.interleave(shares) == batches
    assert sorted(index for share in shares for batch_indices in share for index in batch_indices) == list(
        range(images)
    )


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 20))
def test_an_iteration_has_the_images_of_one_process(images, batch, processes, accumulate, start):
    parts = processes * accumulate
    whole = iter(InfiniteBatchSampler(images, batch * parts, 5, start))
    samplers = [
        iter(InfiniteBatchSampler(images, batch, 5, start, parts=parts, first=rank * accumulate, count=accumulate))
        for rank in range(processes)
    ]
    seen = []
    for _ in range(4):
        draws = [draw for sampler in samplers for _ in range(accumulate) for draw in next(sampler)]
        assert draws == next(whole)
        seen += [draw.index for draw in draws]
    if start == 0:
        assert all(
            sorted(seen[at : at + images]) == list(range(images)) for at in range(0, len(seen) - images + 1, images)
        )


@pytest.fixture
def copy(trained, tmp_path):
    """Copy of the trained folder with seven images, which two processes cannot share evenly."""
    root = shutil.copytree(trained, tmp_path / "copy")
    for folder in ("CamVid/train", "CamVid/val", "CamVid/valannot"):
        (root / folder / "0007.png").unlink()
    shutil.rmtree(root / "exp/quick/rank")
    return root


STAGES = [
    ("entropy", "quick:rank", "rank", []),
    ("test", "quick:daf", "daf", ["TEST.SELECT=entropy", "TEST.MODE=best"]),
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage[0])
def test_sharded_stages_write_the_files_of_one_process(two, copy, tmp_path, stage):
    name, cfg, folder, options = stage
    other = shutil.copytree(copy, tmp_path / "other")
    options = [*options, "STAGE.CHECK_PROVENANCE=false"]
    alone = two.alone(run_script, name, tiny_data.command_line(copy, cfg, *options))
    both = two.run(run_script, name, tiny_data.command_line(other, cfg, *options))
    assert alone[0] == both[0][0] == both[1][0] == 0, (alone, both)
    assert both[0][1] == alone[1].replace(str(copy), str(other))
    assert both[1][1] == ""  # the table is printed once
    ours, theirs = (files(root / "exp/quick" / folder, root) for root in (other, copy))
    assert ours == theirs
    assert len(ours) > 5


def files(folder: Path, root: Path) -> dict:
    """Content of every file without clock times and the root's path."""
    content = json.loads(
        json.dumps(kill_resume_stress.contents(folder), default=lambda b: b.hex()).replace(str(root), "ROOT")
    )
    content.pop("config.yml", None)  # contains the root's path
    if "scores.json" in content:
        content["scores.json"] = list(content["scores.json"].values())  # the keys depend on the root
    return content


def test_pseudo_labels_and_self_learning(two, copy, tmp_path):
    """Pseudo labels are byte-identical; two processes resume as one only with the same number of micro-batches."""
    other = shutil.copytree(copy, tmp_path / "other")
    for root in (copy, other):
        shutil.rmtree(root / "exp/quick/isl")
    options = ["TRAIN.BATCH_SIZE_SOURCE=1", "TRAIN.BATCH_SIZE_TARGET=1", "ISL.REFRESH_EVERY=20", "ISL.CLASS_SHARE=0.3"]
    line = tiny_data.command_line(other, "quick:isl", *options)
    code, _, said = two.alone(
        run_script, "train_isl", tiny_data.command_line(copy, "quick:isl", *options, "TRAIN.ACCUMULATE=2")
    )
    assert code == 0, said
    both = two.run(run_script, "train_isl", line)
    assert [result[0] for result in both] == [0, 0], both
    rounds = [root / "exp/quick/isl/pseudo_labels/round_0" for root in (copy, other)]
    labels = [{p.name: p.read_bytes() for p in folder.glob("*.png")} for folder in rounds]
    assert labels[0] == labels[1]
    assert len(labels[0]) == 7
    record = json.loads((other / "exp/quick/isl/provenance.json").read_text())["batch"]
    assert (record["processes"], record["source_images"], record["learning_rate"]) == (2, 2, 1e-3)
    (other / "exp/quick/isl/finished.json").unlink()
    code, _, said = two.alone(run_script, "train_isl", [*line, "--resume"])
    assert code == 2
    assert "started with 2 processes x TRAIN.ACCUMULATE 1, now 1 x 1" in said
    assert two.alone(run_script, "train_isl", [*line, "--resume", "TRAIN.ACCUMULATE=2"])[0] == 0
    assert two.run(run_script, "train_isl", [*line, "--resume"])[0][0] == 0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("train", ["TRAIN.MAX_ITERS=x"], "TRAIN.MAX_ITERS: want int"),
        ("train", [], "holds the results of an earlier run"),
        ("train", ["TRAIN.SYNC_BN=true", "--resume"], "PyTorch synchronises batch norm on CUDA only"),
        ("test", ["TEST.RESTORE_FROM=nowhere.pth"], "nowhere.pth: No such file"),
    ],
)
def test_user_error_is_printed_once(two, copy, name, options, words):
    results = two.run(run_without_torchrun, name, tiny_data.command_line(copy, "quick:daf", *options))
    said = [line for _, _, err in results for line in err.splitlines() if "error" in line]
    assert len(said) == 1, results
    assert words in said[0]
    assert 2 in [code for code, _, _ in results]
    assert all(code for code, _, _ in results)
    assert not (copy / "exp/quick/daf/run.lock").exists()


def test_a_file_that_one_process_cannot_read_ends_both(two, copy):
    for index in range(1, 7, 2):  # with batches of one image, the second process reads these
        (copy / f"CamVid/val/{index:04d}.png").write_bytes(b"no picture")
    line = tiny_data.command_line(copy, "quick:daf", "DATA_CHECK=0", "TEST.BATCH_SIZE_TARGET=1")
    (copy / "exp/quick/daf/scores.json").unlink(missing_ok=True)
    results = two.run(run_without_torchrun, "test", line)
    assert [code for code, _, _ in results] == [1, 2]
    assert results[0][2] == ""
    assert "0001.png" in results[1][2]


def naps_until_finished(argv: list[str], naps: int) -> tuple[int, list[str]]:
    """(number of sleeps, scored checkpoints) with TEST.WAIT_MODEL; the stage is marked done after `naps` sleeps."""
    options = make_parser("test.py", "", "quick:daf").parse_args(argv)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == naps and distributed.is_main():
            RunDir.of(config).mark_done(stage="daf")

    really, evaluation.time = evaluation.time, SimpleNamespace(sleep=sleep)
    try:
        with distributed.process_group():
            config = config_from_args(options)
            candidates = evaluation.candidates(config)
    finally:
        evaluation.time = really
    return len(slept), [str(candidate.files[0].name) for candidate in candidates]


def test_wait_model_sleeps_on_every_process(two, tmp_path):
    """If only rank 0 slept, the others would wait in a broadcast, which times out after half an hour."""
    root = tiny_data.make_data(tmp_path)
    (root / "exp/quick/daf").mkdir(parents=True)
    (root / "exp/quick/daf/model_6.pth").touch()
    argv = tiny_data.command_line(root, "quick:daf", "TEST.WAIT_MODEL=true")
    assert two.run(naps_until_finished, argv, 3) == [(3, ["model_6.pth"])] * 2


def run_without_torchrun(name: str, argv: list[str]) -> tuple[int, str, str]:
    """Run a script with a short wait for torchrun, which is not there to end it when a peer is lost."""
    distributed.SECONDS_FOR_TORCHRUN = 0.5
    return run_script(name, argv)


def test_under_the_real_torchrun(data):
    """Two processes with one data worker each: one log line for both, the expected checkpoints, no lock left."""
    line = tiny_data.command_line(data, "quick:daf", "NUM_WORKERS=1", "TRAIN.BATCH_SIZE_SOURCE=1")
    run = torchrun("train.py", line)
    _, said = run.communicate(timeout=200)
    assert run.returncode == 0, said
    assert said.count("2 source + 4 target images per iteration (2 processes x TRAIN.ACCUMULATE 1 x batch 1)") == 1
    checkpoints = sorted(p.name for p in (data / "exp/quick/daf").glob("*.pth"))
    assert checkpoints == ["model_3.pth", "model_6.pth", "resume.pth"]
    assert not (data / "exp/quick/daf/run.lock").exists()
