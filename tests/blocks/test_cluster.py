from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from blocks.cluster import DaskCluster, Offers, dask_cluster, given_up
from rollmill.errors import RunStoppedError
from rollmill.inference.ports import PortReservation


@pytest.mark.parametrize("address", ["host:8786", "tcp://host", "http//host:1", ""])
def test_address_without_protocol_or_port_is_refused(address):
    with pytest.raises(ValidationError, match="scheduler"):
        DaskCluster(scheduler=address)


def test_offers_count_workers_and_gpus():
    cluster = DaskCluster(scheduler="tcp://host:8786")
    offers = Offers(cluster, {"tcp://a:1": 0, "tcp://b:1": 2, "tcp://c:1": 1.0})
    assert offers.describe() == "tcp://host:8786: 3 workers, 2 with GPU: tcp://b:1 2, tcp://c:1 1"
    assert [offers.suffices(amount) for amount in (0, 1, 2, 3)] == [True, True, True, False]
    assert not Offers(cluster, {"tcp://a:1": 0}).suffices(0)
    assert Offers(cluster, {}).describe() == "tcp://host:8786: 0 workers, 0 with GPU"


def test_unreachable_scheduler_is_reported_in_one_line(monkeypatch):
    monkeypatch.setattr("blocks.cluster.CONNECT_S", 1)
    port = PortReservation(None)
    address = f"tcp://127.0.0.1:{port.port}"
    port.release()
    with pytest.raises(RunStoppedError, match=f"no Dask scheduler answers at {address}: start it") as raised:
        DaskCluster(scheduler=address).check()
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_check_connects_and_abandoned_tasks_are_given_up(tmp_path):
    """Run in a separate process, with which the cluster's threads and sockets end."""
    code = """
import pathlib, time
from distributed import Client, LocalCluster
from blocks.cluster import DaskCluster, given_up

def work():
    stop, began = given_up(), time.monotonic()
    if not stop():
        (HERE / "began").touch()
    while not stop() and time.monotonic() - began < 60:
        time.sleep(0.02)
    (HERE / f"given up: {stop()}").touch()

def wait_for(pattern):
    while not (found := list(HERE.glob(pattern))):
        time.sleep(0.02)
    return found[0].name

if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, resources={"GPU": 2}, dashboard_address=None,
                      host="127.0.0.1", protocol="tcp") as cluster:
        print(DaskCluster(scheduler=cluster.scheduler_address).check())
        with Client(cluster.scheduler_address) as client:
            future = client.submit(work, resources={"GPU": 1})
            wait_for("began")
            assert future.status == "pending"
        print(wait_for("given up: *"))
"""
    path = tmp_path / "work.py"
    path.write_text(code.replace("HERE", f"pathlib.Path({str(tmp_path)!r})"))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=120)
    checked, message = done.stdout.splitlines()
    assert "1 workers, 1 with GPU: tcp://127.0.0.1:" in checked
    assert checked.endswith(" 2")
    assert message == "given up: True"


def test_no_name_gives_none():
    assert dask_cluster(None) is None


def test_given_up_is_none_outside_a_cluster():
    assert given_up() is None
