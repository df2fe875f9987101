"""Real faults: twenty kills, a full disk, a file-size limit, three processes in one folder."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

import make_streets
import train
from helpers import kill_resume_stress, tiny_data

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_twenty_kills(trained, tmp_path):
    root = shutil.copytree(trained, tmp_path / "copy")
    share = dict.fromkeys(kill_resume_stress.SCENARIOS, 2) | {"ISL": 4}
    tally = kill_resume_stress.kill_scenarios(root, share, seed=20, prepared=True)
    assert tally.differing == []
    assert tally.survived == tally.tried == 20


@pytest.fixture
def small_disk(tmp_path):
    """A 100 MB tmpfs; a resume state with a discriminator takes 40 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    mounted = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(disk)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("no right to mount a small tmpfs here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_full_disk(data, small_disk, capsys):
    whole = tiny_data.command_line(data, "quick:daf", "TRAIN.SAVE_PRED_EVERY=2")
    assert train.main(whole) == 0
    arguments = [*whole, f"--exp-root={small_disk}"]
    filler = small_disk / "filler"
    folder, reference = small_disk / "quick/daf", data / "exp/quick/daf"
    size = (reference / "resume.pth").stat().st_size + (reference / "model_2.pth").stat().st_size
    filler.write_bytes(bytes(100_000_000 - size - 1_000_000))  # space for one checkpoint, not for two
    assert train.main(arguments) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert "No space left on device; make room, then: python train.py" in error[0]
    assert (folder / "model_2.pth").read_bytes() == (reference / "model_2.pth").read_bytes()
    assert not list(folder.rglob("*.tmp"))
    filler.unlink()
    assert train.main([*arguments, "--resume"]) == 0
    ours, theirs = kill_resume_stress.contents(folder), kill_resume_stress.contents(reference)
    assert ours.pop("config.yml") != theirs.pop("config.yml")  # contains the folder's name
    assert ours == theirs


@pytest.mark.slow
def test_file_size_limit(data):
    """A real process and a real error of the operating system."""
    command = [sys.executable, "train.py", *tiny_data.command_line(data, "quick:daf")]
    limited = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert limited.returncode == 2
    assert "File too large; make room, then: python train.py" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert not list((data / "exp").rglob("*.tmp"))
    assert not list((data / "exp").rglob("*.pth"))


@pytest.mark.slow
def test_two_processes_race_for_one_folder(data):
    command = [sys.executable, "train.py", *tiny_data.command_line(data, "quick:daf", "TRAIN.EARLY_STOP=30")]
    runs = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [run.communicate()[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 2, 2]
    refused = [text for run, text in zip(runs, said, strict=True) if run.returncode]
    # A late process may also find the results of the run that has just finished.
    assert all("another run works here" in text or "an earlier run" in text for text in refused)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_killed_process_ends_the_rendering(tmp_path, victim):
    """A killed worker is one line and exit code 2; SIGTERM stops the parent, and the scenes so far are whole."""
    command = [sys.executable, str(Path(make_streets.__file__)), "--out", str(tmp_path), "--count", "400"]
    with subprocess.Popen(
        [*command, "--size", "96x72", "--workers", "2"], stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(tmp_path.glob("RGB/*.png")) and process.poll() is None:
            time.sleep(0.1)
        if victim == "parent":
            process.terminate()
        else:
            os.kill(children(process.pid)[-1], signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == (128 + signal.SIGTERM if victim == "parent" else 2)
    last = errors.strip().splitlines()[-1]
    assert ("continue with" if victim == "parent" else "a worker process was ended from outside") in last
    assert all(cv2.imread(str(file)) is not None for file in tmp_path.glob("RGB/*.png"))


def children(pid):
    """Process ids of the children of a process, the oldest first."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
