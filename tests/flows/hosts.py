"""Simulated hosts on one machine: network namespaces with their own host names, joined by a bridge in the first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from rollmill.inference.supervised_process import SupervisedProcess
from tests.waiting import wait_until

HOLD_OPEN = 'hostname "$0" && echo ready && exec sleep 86400'


class Host:
    """A network namespace and a host name. Both live as long as a process is in them."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name = name
        self.address = address
        log = folder / f"{name}.log"
        command = ["unshare", "--net", "--uts", "sh", "-c", HOLD_OPEN, name]
        self.holder = SupervisedProcess(command, log=log)
        wait_until(lambda: self.holder.returncode is not None or "ready" in log.read_text())
        if self.holder.returncode is not None:
            pytest.skip(f"no network namespace can be made here: {log.read_text().strip()}")
        [inside] = psutil.Process(self.holder.pid).children()
        self.pid = inside.pid

    @property
    def prefix(self) -> list[str]:
        """The command prefix that runs a command on the host."""
        return ["nsenter", "--target", str(self.pid), "--net", "--uts"]

    def do(self, *command: str) -> None:
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            pytest.skip(f"{' '.join(command)} is not permitted here: {done.stderr.strip()}")

    def start(self, *command: str, log: Path, environment: dict[str, str]) -> SupervisedProcess:
        return SupervisedProcess([*self.prefix, sys.executable, *command], log=log, environment=environment)


class Network:
    """A hub with a bridge, and the hosts that are connected through it."""

    def __init__(self, hub: Host, others: dict[str, Host]) -> None:
        self.hub = hub
        self.others = others
        hub.do("ip", "link", "set", "lo", "up")
        hub.do("ip", "link", "add", "bridge", "type", "bridge")
        hub.do("ip", "address", "add", f"{hub.address}/24", "dev", "bridge")
        hub.do("ip", "link", "set", "bridge", "up")
        for name, host in others.items():
            hub.do("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            hub.do("ip", "link", "set", name, "master", "bridge", "up")
            host.do("ip", "link", "set", "lo", "up")
            host.do("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            host.do("ip", "link", "set", "eth0", "up")

    def cut_off(self, name: str) -> None:
        """Drop all packets to and from the host, without closing connections."""
        self.hub.do("ip", "link", "set", name, "down")


@contextmanager
def network(folder: Path, *names: str) -> Iterator[Network]:
    """Create hosts with addresses of the documentation range (RFC 5737). Skip the test if that is not possible."""
    with ExitStack() as stack:
        hosts = []
        for number, name in enumerate(("hub", *names), start=1):
            host = Host(name, f"192.0.2.{number}", folder)
            stack.callback(host.holder.end)
            hosts.append(host)
        yield Network(hosts[0], {host.name: host for host in hosts[1:]})
