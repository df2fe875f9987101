"""Launchers: a torchrun restart resumes only its own run; a cluster's environment variables alone start no group."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist

import predict
import train
from advent.cli import run_cli
from advent.errors import ConfigError
from advent.runtime import distributed, rendezvous
from advent.utils.serialization import write_json
from helpers import tiny_data


@pytest.fixture
def torchrun(monkeypatch):
    """Simulate torchrun starts: store and variables of one process. Host, run id and process ids repeat."""
    stores = []

    def begin(store: bool = True) -> None:
        stores.append(dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        variables = {
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "WORLD_SIZE": "1",
            "RANK": "0",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(stores[-1].port),
            "TORCHELASTIC_USE_AGENT_STORE": str(store),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield begin
    stores.clear()


def proc(root: Path, start: int, command: str = "python", boot: str = "b") -> Path:
    """A fake /proc in which process 7 started `start` ticks after boot."""
    for file, text in (("sys/kernel/random/boot_id", boot), ("7/stat", f"7 ({command}) S {'0 ' * 18}{start} 0 0")):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return root


def test_launcher_id_is_unique_per_start(torchrun):
    ids = []
    for _ in range(2):
        torchrun()
        ids.append([rendezvous.launcher_id() for _ in range(3)])
    assert len({*ids[0]}) == len({*ids[1]}) == 1
    assert ids[0][0] != ids[1][0]


def test_launcher_without_agent_store_is_identified_by_start_time(torchrun, tmp_path):
    torchrun(store=False)
    parent = rendezvous._launcher_process(os.getppid())
    assert rendezvous.launcher_id() == parent
    assert parent is not None
    first, same, odd, later, boot = (
        rendezvous._launcher_process(7, proc(tmp_path / name, *facts))
        for name, *facts in (("a", 50), ("b", 50), ("c", 50, "a) S 1 2 (b"), ("d", 51), ("e", 50, "python", "other"))
    )
    assert first == same == odd
    assert len({first, later, boot}) == 3
    assert rendezvous._launcher_process(7, tmp_path / "nothing") is None


def test_only_a_restart_overrules_overwrite(trained, tmp_path, torchrun, monkeypatch, capsys):
    """Three starts on one folder; tests/slow/test_real_ranks.py repeats them with the real torchrun."""
    root = shutil.copytree(trained, tmp_path / "copy")
    folder = root / "exp/quick/daf"

    def run(*options: str) -> int:
        return train.main(tiny_data.command_line(root, "quick:daf", "TRAIN.EARLY_STOP=3", "TRAIN.POWER=0.5", *options))

    def record() -> dict:
        return json.loads((folder / "provenance.json").read_text())

    torchrun()
    write_json(folder / "provenance.json", {**record(), "launcher": rendezvous.launcher_id()})
    first = record()
    torchrun()
    assert run("--overwrite") == 0
    second = record()
    assert "POWER: 0.5" in (folder / "config.yml").read_text()
    assert second["launcher"] not in (None, first["launcher"])
    assert "continued" not in second  # trained, not resumed
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert run("--overwrite") == 0  # a restart of the second start
    assert [entry["iteration"] for entry in record()["continued"]] == [4]  # at the end, after iterations 0 to 3
    assert record()["time"] == second["time"]
    torchrun()
    for count in "01":  # a restart of a process that refused another start's results
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        capsys.readouterr()
        assert run() == 2
        assert "holds the results of an earlier run" in capsys.readouterr().err
    assert len(record()["continued"]) == 1


@pytest.fixture
def pod(monkeypatch):
    """A cluster's variables for the second of two nodes, without torchrun."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "node-0", "MASTER_PORT": "23456"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    yield
    distributed.set_single(False)


def test_a_tool_works_alone_on_a_node_of_a_cluster(pod, tmp_path, capsys):
    paths = {"--checkpoint": "none.pth", "--input": "", "--output": "out"}
    assert predict.main([word for flag, name in paths.items() for word in (flag, str(tmp_path / name))]) == 2
    said = capsys.readouterr().err
    assert "none.pth" in said
    assert "torchrun" not in said


def test_tool_prints_its_error_on_every_node(pod, monkeypatch, capsys):
    seen = []

    def body() -> None:
        seen.append((distributed.is_distributed_launch(), distributed.launched_rank()))
        raise ConfigError("no such thing")

    assert run_cli("scripts/tool.py", body, []) == 2
    assert seen == [(False, 0)]
    assert capsys.readouterr().err == "scripts/tool.py: error: no such thing\n"
    monkeypatch.setenv("LOCAL_RANK", "1")  # set by torchrun, which would run the tool several times
    assert run_cli("scripts/tool.py", body, []) == 2
    assert len(seen) == 1
    assert capsys.readouterr().err == ""  # only the first process of the machine prints the error
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run_cli("scripts/tool.py", body, []) == 2
    assert "scripts/tool.py works in one process; start it with python" in capsys.readouterr().err


def test_every_machine_prints_its_error_when_the_store_has_died(pod, monkeypatch):
    """The machine of rank 0 holds the store. When it dies, the other machines once ended without a word."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    clients = [dist.TCPStore("127.0.0.1", server.port, is_master=False) for _ in range(2)]
    printed = []
    for alive in (True, False):
        if not alive:
            del server
        for local_rank, client in enumerate(clients):
            monkeypatch.setenv("LOCAL_RANK", str(local_rank))
            monkeypatch.setattr(distributed._World, "store", client)
            printed.append(distributed.is_error_reporter())
    assert printed == [True, False, True, False]


def test_a_store_that_does_not_answer_keeps_no_error_back(pod, monkeypatch):
    """The store's machine has disappeared without closing its connections."""
    vanished = threading.Event()
    monkeypatch.setattr(distributed._World, "store", SimpleNamespace(add=lambda *_: vanished.wait()))
    monkeypatch.setattr(distributed, "SECONDS_FOR_STORE", 0.05)
    assert distributed.is_error_reporter()
    vanished.set()


def test_a_stage_takes_part_on_a_node_of_a_cluster(pod):
    """One process per node, started with python: PyTorch's env:// variables are enough."""
    distributed.set_single(True)
    assert not distributed.is_distributed_launch()
    distributed.set_single(False)
    assert distributed.is_distributed_launch()
    assert distributed.launched_rank() == 1
