"""Two hosts on one machine: network namespaces that a veth pair connects, each with its host name and process ids.

The hosts share files, as on a shared file system. Needs Linux, iproute2, unshare and the right to make namespaces.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from helpers.process_pool import ROOT

INTERFACE = "veth0"
PORT = 29500
ADDRESSES = {"host-one": "198.18.0.1", "host-two": "198.18.0.2"}  # RFC 2544: for tests between networks
# A process namespace ends as a whole when its first process is killed; unshare kills that one when it is killed itself.
NEW_HOST = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
SET_NAMES = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'


@dataclass
class Run:
    """A command on a host; `log` has its standard output and error."""

    process: subprocess.Popen
    log: Path

    def wait(self, seconds: float) -> tuple[int, str]:
        """(exit code, output). Raises AssertionError if the command takes longer than `seconds`."""
        try:
            return self.process.wait(seconds), self.log.read_text()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {seconds} s: {self.log.read_text()}") from None


@dataclass
class Host:
    """One of the two hosts; `namespace` is the name of its network namespace."""

    name: str
    namespace: str
    folder: Path
    runs: list[Run] = field(default_factory=list)

    def start(self, command: list[str], **environment: str) -> Run:
        """Start a command, as the first process of its process namespace."""
        log = self.folder / f"{self.name}.{len(self.runs)}.log"
        names = ["sh", "-c", SET_NAMES, "sh", self.name, str(self.folder / "hosts")]
        with open(log, "w") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *NEW_HOST, *names, *command],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal reaches no host
                env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": INTERFACE, **environment},
            )
        self.runs.append(Run(process, log))
        return self.runs[-1]

    def torchrun(self, script: str, argv: list[str], *flags: str, **environment: str) -> Run:
        """Start torchrun with one process on this host; the first host has the rendezvous, unless `flags` differ."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=host-one:{PORT}", "--rdzv-id=two-hosts"]
        return self.start([*launcher, *rendezvous, *flags, script, *argv], **environment)

    def kill(self) -> None:
        """SIGKILL to all processes of the host; the kernel closes their connections."""
        for run in self.runs:
            run.process.kill()
            run.process.wait()
        for pid in _ip("netns", "pids", self.namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def disconnect(self) -> None:
        """Pull the cable: packets are lost, and no connection is closed."""
        _ip("-n", self.namespace, "link", "set", INTERFACE, "down")


@contextmanager
def two_hosts(folder: Path) -> Iterator[list[Host]]:
    """The two hosts, removed with all their processes afterwards. Raises OSError, with the reason, if they cannot be.

    folder: for logs, one file per command, and for the hosts' /etc/hosts.
    """
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in ADDRESSES.items()))
    hosts: list[Host] = []
    try:
        for name in ADDRESSES:
            host = Host(name, f"{name}-{os.getpid()}", folder)
            _ip("netns", "add", host.namespace)
            hosts.append(host)
        first, second = (host.namespace for host in hosts)
        _ip("link", "add", INTERFACE, "netns", first, "type", "veth", "peer", "name", INTERFACE, "netns", second)
        for host in hosts:
            _ip("-n", host.namespace, "address", "add", f"{ADDRESSES[host.name]}/24", "dev", INTERFACE)
            for link in ("lo", INTERFACE):
                _ip("-n", host.namespace, "link", "set", link, "up")
        code, said = hosts[0].start(["true"]).wait(60)
        if code:
            raise OSError(said.strip())
        yield hosts
    finally:
        for host in hosts:
            host.kill()
        for host in hosts:  # the veth pair goes with either namespace
            _ip("netns", "delete", host.namespace)


def _ip(*arguments: str) -> str:
    """Output of iproute2's `ip`; raises OSError with its error, also if there is no such program."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
