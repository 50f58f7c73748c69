import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rollmill.errors import ServingError
from rollmill.inference.ports import LOOPBACK, PortReservation
from rollmill.inference.probe import healthy
from rollmill.inference.scripted import Script, ScriptedServer


@pytest.fixture
def reservation():
    reserved = PortReservation(None)
    yield reserved
    reserved.release()


def test_a_port_in_use_names_its_holder():
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServingError) as caught:
            PortReservation(port)
    message = str(caught.value)
    assert message.startswith(f"port {port} cannot be used (Address already in use): process {os.getpid()} (")
    assert "python" in message
    assert "--model_port" in message
    assert "\n" not in message


def test_a_port_that_another_process_holds_on_all_addresses():
    script = "import socket; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as process:
        port = int(process.stdout.readline())
        with pytest.raises(ServingError, match=f"process {process.pid} "):
            PortReservation(port)
        process.kill()


def test_reserved_port_is_not_given_out_again(reservation):
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    sockets = []
    try:
        for _ in range(min(2000, high - low)):
            sockets.append(socket.socket())
            sockets[-1].bind((LOOPBACK, 0))
        assert reservation.port not in {s.getsockname()[1] for s in sockets}
    finally:
        for taken in sockets:
            taken.close()
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind((LOOPBACK, reservation.port))


def test_a_server_can_listen_on_the_reserved_port(reservation):
    with ScriptedServer(Script(), port=reservation.port) as server:
        assert server.port == reservation.port
        assert healthy(server.base_url)


def test_a_released_port_is_free(reservation):
    reservation.release()
    again = PortReservation(reservation.port)
    assert again.port == reservation.port
    again.release()
