"""Faults during a run: signals, a second run in the folder, a full disk, non-finite losses."""

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import pipeline
import train
import train_isl
from advent.utils import serialization
from helpers import kill_resume_stress, tiny_data


@pytest.fixture
def copy(trained, tmp_path):
    """Writable copy of the trained folder."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture(scope="module")
def long_run(trained, tmp_path_factory):
    """Uninterrupted run of thirty iterations: (kill runner, arguments, run folder, reference folder)."""
    root = shutil.copytree(trained, tmp_path_factory.mktemp("long") / "copy")
    runner = kill_resume_stress.KillRunner(root, 0)
    arguments = tiny_data.command_line(
        root, "quick:daf", "--exp-suffix=long", *kill_resume_stress.LONG, "TRAIN.EARLY_STOP=30"
    )
    runner.run_to_end("train", arguments)
    reference = (root / "exp/quick_long/daf").rename(root / "reference")
    return runner, arguments, root / "exp/quick_long/daf", reference


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGTERM,), 143),
        ((signal.SIGUSR1,), 138),
        ((signal.SIGINT,), 130),
        ((signal.SIGINT, signal.SIGINT), 130),
    ],
)
def test_signal_stops_the_run_resumably(long_run, numbers, code):
    runner, arguments, folder, reference = long_run
    log = runner.log.with_suffix(".log")
    log.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    process = runner.context.Process(
        target=kill_resume_stress.run_child, args=("train", arguments, None, str(runner.log))
    )
    process.start()
    deadline = time.monotonic() + 60
    while not (folder / "model_6.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in numbers:
        os.kill(process.pid, number)
        time.sleep(0.02)
    process.join(60)
    assert process.exitcode == code
    said = log.read_text()
    assert "continue with: python train.py --cfg quick:daf" in said
    assert said.rstrip().endswith("--resume")
    assert "Traceback" not in said
    assert not (folder / "finished.json").exists()
    assert not (folder / "run.lock").exists()
    runner.run_to_end("train", [*arguments, "--resume"])
    assert kill_resume_stress.contents(folder) == kill_resume_stress.contents(reference)


def test_data_workers_ignore_a_signal_to_the_process_group(long_run):
    """A scheduler signals every process of a job; a data worker that died of it would end the run with a traceback."""
    runner, arguments, folder, reference = long_run
    children = Path("/proc/self/task") / str(os.getpid()) / "children"
    if not children.exists():
        pytest.skip("this system does not list a process's children")
    log = runner.log.with_suffix(".log")
    log.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    with_workers = [*arguments, "NUM_WORKERS=2"]
    process = runner.context.Process(
        target=kill_resume_stress.run_child, args=("train", with_workers, None, str(runner.log))
    )
    process.start()
    deadline = time.monotonic() + 60
    while not (folder / "model_6.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) == 4  # two for each domain
    for pid in (*workers, process.pid):
        os.kill(int(pid), signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    assert "Traceback" not in log.read_text()
    runner.run_to_end("train", [*with_workers, "--resume"])
    ours, theirs = kill_resume_stress.contents(folder), kill_resume_stress.contents(reference)
    assert {name for name in ours if ours[name] != theirs.get(name)} == {"config.yml"}  # contains NUM_WORKERS


def hold(folder, ready):
    from advent.runtime.lock import FolderLock

    FolderLock(folder).acquire()
    ready.set()
    time.sleep(60)


def test_one_run_per_folder_and_stale_lock_is_ignored(data, capsys):
    context = kill_resume_stress.KillRunner(data, 0).context
    folder, ready = data / "exp/quick/daf", context.Event()
    other = context.Process(target=hold, args=(folder, ready))
    other.start()
    assert ready.wait(60)
    assert train.main(tiny_data.command_line(data, "quick:daf")) == 2
    error = capsys.readouterr().err
    assert "another run works here" in error
    assert f"process {other.pid} on " in error
    assert pipeline.main(tiny_data.command_line(data, "quick", "--status")) == 0
    assert f"running (process {other.pid}" in capsys.readouterr().out
    other.kill()
    other.join()
    assert (folder / "run.lock").exists()
    assert train.main(tiny_data.command_line(data, "quick:daf")) == 0
    assert not (folder / "run.lock").exists()


class FullDisk:
    """Simulates a full disk: files of serialization.py take `room` bytes together, then ENOSPC is raised."""

    def __init__(self, room):
        self.room = room

    def open(self, path, mode):
        handle = open(path, mode)  # noqa: SIM115
        really = handle.write

        class Handle:
            def __enter__(inner):
                return inner

            def __exit__(inner, *_):
                handle.close()

            def write(inner, content):
                self.room -= len(content)
                if self.room < 0:
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
                return really(content)

            def __getattr__(inner, name):
                return getattr(handle, name)

        return Handle()


@pytest.mark.parametrize("script", [train, train_isl], ids=["stage 0", "isl"])
@pytest.mark.parametrize("share", [0.001, 0.4, 0.8])
def test_a_full_disk_harms_nothing(copy, monkeypatch, capsys, script, share):
    cfg, stage = ("quick:daf", "daf") if script is train else ("quick:isl", "isl")
    folder, reference = copy / "exp/quick" / stage, copy / "reference"
    shutil.rmtree(folder)
    arguments = tiny_data.command_line(
        copy, cfg, "--resume", *kill_resume_stress.LONG, "TRAIN.KEEP=0", "ISL.REFRESH_EVERY=4"
    )
    assert script.main(arguments) == 0
    folder.rename(reference)
    capsys.readouterr()
    snapshots = list(reference.glob("model_*.pth"))
    written = len(snapshots) * ((reference / "resume.pth").stat().st_size + snapshots[0].stat().st_size)
    monkeypatch.setattr(serialization, "open", FullDisk(share * written).open, raising=False)
    assert script.main(arguments) == 2
    monkeypatch.undo()
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert "No space left on device; make room, then: python" in error[0]
    assert not list(folder.rglob("*.tmp"))
    if share > 0.1:
        assert list(folder.glob("model_*.pth"))
    for snapshot in folder.glob("model_*.pth"):
        assert snapshot.read_bytes() == (reference / snapshot.name).read_bytes()
    assert script.main(arguments) == 0
    assert kill_resume_stress.contents(folder) == kill_resume_stress.contents(reference)


def test_nonfinite_losses_end_the_run(data, capsys):
    arguments = tiny_data.command_line(data, "quick:daf", "TRAIN.LEARNING_RATE=1e30", "TRAIN.SAVE_PRED_EVERY=1")
    assert train.main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    for words in ("not finite: ", "iteration 1:", "images: source 000", "target 00", "TRAIN.SKIP_NONFINITE allows 0"):
        assert words in error
    rows = [json.loads(line) for line in (data / "exp/quick/daf/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["skipped"] == 1
    assert rows[-1]["seg"] < 10  # the mean over finite values
    assert train.main([*arguments, "--resume", "TRAIN.SKIP_NONFINITE=100"]) == 0
    rows = [json.loads(line) for line in (data / "exp/quick/daf/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["skipped"] == 6
