"""Check of a GPU: golden values, every method and precision, several processes, memory, speed. Writes one JSON.

    bash scripts/check.sh --gpu --wheels DIR
    bash scripts/check.sh --gpu cpu --out rehearsal.json
    python scripts/gpu_check.py --page docs/performance.md

Needs PyTorch and no package index; data are rendered on the spot. Every part is a process with its own time limit: it
fails alone, and all parts together take under nine minutes. With `--device cpu` the same parts run in small, as a
rehearsal. `--page` writes the tables of --out's JSON into a page. The exit code is 0 if every part passed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages need not be installed

import torch

from advent.checkpoints.provenance import environment
from advent.cli import OneLineParser
from advent.errors import ConfigError, first_line, hint
from advent.runtime.device import device_facts, pick_device
from advent.utils.serialization import read_json, write_json, write_text
from advent.utils.tables import markdown_table
from ida import cli
from performance.gpu import MEASUREMENTS

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs/data/gpu.json"
TOTAL = 525  # seconds for all parts together
KILLED = 5  # seconds below which no part is started
MARK = re.compile(r"(<!-- gpu: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
GIB = 2**30


@dataclass(frozen=True)
class Part:
    """A part of the check: pytest arguments, or the name of a measurement; and its time limit in seconds."""

    name: str
    seconds: int
    tests: tuple[str, ...] = ()
    cuda_only: bool = False


STAGES, EQUAL = "tests/device/test_stages.py", "tests/device/test_equal_to_cpu.py"
PARTS = (
    Part("golden values, float64", 60, ("tests/golden",)),
    Part("equal to the CPU, float64", 60, (EQUAL, "-k", "cpus_numbers")),
    Part("no waiting for the device", 60, (EQUAL, "-k", "never_waits"), cuda_only=True),
    Part("methods, fp32", 60, (STAGES, "-k", "(three_iterations or scores) and off")),
    Part("methods, bf16", 60, (STAGES, "-k", "(three_iterations or scores) and bf16")),
    Part("methods, fp16", 60, (STAGES, "-k", "(three_iterations or scores) and fp16")),
    Part("resume to the same bytes", 60, (STAGES, "-k", "same_bytes")),
    Part("two processes, gloo", 60, (EQUAL, "-k", "two_processes")),
    Part("one process, NCCL", 45, (EQUAL, "-k", "nccl"), cuda_only=True),
    Part("steps", 150),
    Part("rates", 90),
    Part("compile, channels last", 150, (STAGES, "-k", "compiled"), cuda_only=True),
)
REHEARSAL_FACTOR = 40  # a CPU is slower, and other work may share it


def run_part(part: Part, device: torch.device, limit: float) -> dict[str, Any]:
    """Run a part in its own process group; its record: state, seconds, rows, and the first line of an error."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows"
        if part.tests:
            options = ["-p", "no:cacheprovider", "-o", "addopts=", "-q", f"--junitxml={out}", f"--basetemp={folder}/t"]
            command = [sys.executable, "-m", "pytest", *part.tests, *options]
        else:
            command = [sys.executable, str(Path(__file__).resolve()), "--part", part.name, "--device", str(device)]
            command += ["--out", str(out)]
        # cuBLAS reads its setting when it starts, before a test can set it.
        settings = {"TEST_DEVICE": str(device), "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        began = time.monotonic()
        with (Path(folder) / "log").open("w+", encoding="utf-8", errors="replace") as log:
            code = _run(command, {**os.environ, **settings}, log, limit)
            seconds = time.monotonic() - began
            log.seek(0)
            text = log.read()
        rows = _test_rows(out) if part.tests else read_json(out)["rows"] if out.is_file() else []
    record: dict[str, Any] = {"state": "ok", "seconds": round(seconds, 1), "rows": rows}
    if code is None:
        record |= {"state": "timed out", "error": f"no end within {limit:.0f} s"}
    elif code:
        errors = [row["error"] for row in rows if "error" in row] or _last_lines(text)
        record |= {"state": "failed", "error": first_line(errors[0], 300) if errors else f"exit code {code}"}
    return record


def _run(command: Sequence[str], env: dict[str, str], log: Any, limit: float) -> int | None:
    """Exit code of a command; None after the limit, when its whole process group is killed."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):  # also what a crashed part left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _test_rows(report: Path) -> list[dict[str, Any]]:
    """A row per test of pytest's JUnit report: name, seconds, and why it failed or was skipped."""
    rows: list[dict[str, Any]] = []
    if not report.is_file():  # pytest writes it at its end
        return rows
    for case in ET.parse(report).iter("testcase"):
        entry: dict[str, Any] = {"what": case.get("name"), "seconds": float(case.get("time", 0))}
        for key, words in (("failure", "error"), ("error", "error"), ("skipped", "skipped")):
            if (found := case.find(key)) is not None:
                entry[words] = first_line(found.get("message") or "unknown", 300)
        rows.append(entry)
    return rows


def _last_lines(text: str) -> list[str]:
    """The last line of a log that is not empty: of a traceback, the error."""
    return [line for line in text.splitlines() if line.strip()][-1:]


def check(device_name: str, out: Path, only: Sequence[str] | None = None) -> bool:
    """Run all parts; the JSON is written after each one. Returns whether all passed or were skipped."""
    names = [part.name for part in PARTS]
    for name in only or ():
        if name not in names:
            raise ConfigError(f"--only {name}: there is no such part; {hint(name, names)}")
    device = pick_device(device_name)
    rehearsal = device.type == "cpu"
    began, factor = time.monotonic(), REHEARSAL_FACTOR if rehearsal else 1
    record: dict[str, Any] = {"schema": 1, **environment(), "device": device_facts(device), "rehearsal": rehearsal}
    if device.type == "cuda":
        record["device"]["memory_bytes"] = torch.cuda.get_device_properties(device).total_memory
    record["parts"] = {}
    for part in PARTS:
        if only and part.name not in only:
            continue
        left = TOTAL * factor - (time.monotonic() - began)
        if rehearsal and part.cuda_only:
            result: dict[str, Any] = {"state": "skipped", "seconds": 0.0, "rows": [], "error": "CUDA only"}
        elif left < KILLED:
            result = {"state": "timed out", "seconds": 0.0, "rows": [], "error": "no time left"}
        else:
            result = run_part(part, device, min(part.seconds * factor, left))
        record["parts"][part.name] = result
        record["seconds"] = round(time.monotonic() - began, 1)
        write_json(out, record)
        print(f"{part.name}: {result['state']}, {result['seconds']} s", file=sys.stderr, flush=True)
    print(parts_table(record))
    return all(result["state"] in ("ok", "skipped") for result in record["parts"].values())


def parts_table(record: dict[str, Any]) -> str:
    """State and seconds of every part."""
    rows = []
    for name, part in record["parts"].items():
        done = sum("error" not in row and "skipped" not in row for row in part["rows"])
        rows.append([name, part["state"], f"{part['seconds']:.0f}", f"{done} of {len(part['rows'])}"])
        rows[-1].append(part.get("error", "").replace("|", "/"))
    return markdown_table(["part", "state", "s", "passed", "first error"], rows)


def steps_table(record: dict[str, Any]) -> str:
    """Memory and time of the real configs' steps."""
    rows = []
    for row in record["parts"].get("steps", {}).get("rows", []):
        sizes = [f"{row[key] / GIB:.1f}" if key in row else "-" for key in ("peak_bytes", "estimate_bytes")]
        rows.append([row["what"], f"{row['seconds']:.3g}" if "seconds" in row else row.get("skipped", "-"), *sizes])
    return markdown_table(["step", "s", "peak, GiB", "counted in advance, GiB"], rows)


def rates_table(record: dict[str, Any]) -> str:
    """Images per second of the stages after training."""
    rows = [[row["what"], f"{row['per_second']:.3g}"] for row in record["parts"].get("rates", {}).get("rows", [])]
    return markdown_table(["command", "images/s"], rows)


BLOCKS = {"parts": parts_table, "steps": steps_table, "rates": rates_table}


def fill_page(text: str, record: dict[str, Any] | None) -> str:
    """The page with its blocks `<!-- gpu: NAME -->` ... `<!-- end -->` made from a record. Raises ConfigError."""

    def renewed(match: re.Match[str]) -> str:
        opening, name, closing = match.groups()
        if name not in BLOCKS:
            raise ConfigError(f"{opening.strip()}: expected one of {', '.join(BLOCKS)}")
        if record is None or record["rehearsal"]:
            return f"{opening}Not yet run on a GPU.\n{closing}"
        head = f"{record['device']['name']}, PyTorch {record['versions']['torch']}:"
        return f"{opening}{head}\n\n{BLOCKS[name](record)}\n{closing}"

    return MARK.sub(renewed, text)


def measure(name: str, device: torch.device, out: Path) -> None:
    """Body of a measurement's process: its rows are written after each one."""
    rows: list[dict[str, Any]] = []
    for entry in MEASUREMENTS[name](device, device.type == "cpu"):
        rows.append(entry)
        write_json(out, {"rows": rows})


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line; check, fill a page, or run one measurement. Returns the exit code."""
    parser = OneLineParser(
        prog="gpu_check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cuda", help="cuda (default), cuda:N, or cpu for a rehearsal")
    add("--out", metavar="FILE", type=Path, default=OUT, help="the JSON (default: docs/data/gpu.json)")
    add("--only", nargs="+", metavar="PART", help="only these parts")
    add("--page", metavar="FILE", type=Path, help="only write the tables of --out into a page")
    add("--part", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    passed = True

    def body() -> None:
        nonlocal passed
        if args.part:
            measure(args.part, pick_device(args.device), args.out)
        elif args.page:
            record = read_json(args.out) if args.out.is_file() else None
            write_text(args.page, fill_page(args.page.read_text(encoding="utf-8"), record))
            print(args.page)
        else:
            passed = check(args.device, args.out.resolve(), args.only)

    code = cli.run_cli("scripts/gpu_check.py", body, argv)
    return code or (0 if passed else 1)


if __name__ == "__main__":
    sys.exit(main())
