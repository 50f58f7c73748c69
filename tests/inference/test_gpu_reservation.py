"""Reservations of GPUs between jobs: locks, some of them of other processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rollmill.errors import InputError
from rollmill.inference import gpu_reservation
from rollmill.inference.gpu_reservation import free_gpus, reserve_gpus
from rollmill.inference.visible_gpus import Gpu, find_gpus
from tests.gpus import FakeMachine
from tests.waiting import wait_until

SHARE = {"ROLLMILL_SHARE_GPUS": "1"}
HOLDER = """
import sys, pathlib
from rollmill.inference import gpu_reservation
from rollmill.inference.visible_gpus import Gpu
gpu_reservation.FOLDER = pathlib.Path(sys.argv[1])
with gpu_reservation.reserve_gpus([Gpu("0", uuid="GPU-a0")], shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    machine = FakeMachine(tmp_path / "machine", monkeypatch)
    machine.show_gpus(2)
    return machine


@contextmanager
def other_job(kind: str = "exclusive") -> Iterator[subprocess.Popen[str]]:
    """Run a process that has GPU 0."""
    command = [sys.executable, "-c", HOLDER, str(gpu_reservation.FOLDER), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def free_names(*, shared: bool = False) -> tuple[str, ...]:
    return free_gpus({}, shared=shared).names


def test_gpu_of_another_process_is_not_free_until_that_is_killed(machine: FakeMachine) -> None:
    assert free_names() == ("0", "1")
    with other_job() as job:
        assert free_names() == free_names(shared=True) == ("1",)
        assert [gpu.name for gpu in free_gpus({}).in_use] == ["0"]
        assert free_gpus(SHARE).names == ("0", "1")
        with pytest.raises(InputError, match=r"^in use by another job: GPU 0: wait for its end"):
            reserve_gpus(find_gpus({}).gpus).__enter__()
        with reserve_gpus(find_gpus({}).gpus, environment=SHARE):
            pass
        job.kill()
        wait_until(lambda: free_names() == ("0", "1"))


def test_gpu_is_the_same_under_all_its_names(machine: FakeMachine) -> None:
    with other_job():
        assert free_gpus({"CUDA_VISIBLE_DEVICES": "GPU-a0,GPU-a1"}).names == ("GPU-a1",)
        assert free_gpus({"CUDA_VISIBLE_DEVICES": "1,0"}).names == ("1",)


def test_shared_reservations_exclude_only_others(machine: FakeMachine) -> None:
    with other_job("shared"):
        assert free_names(shared=True) == ("0", "1")
        assert free_names() == ("1",)
        with reserve_gpus(find_gpus({}).gpus, shared=True):
            assert free_names(shared=True) == ("0", "1")


def test_process_sees_no_gpu_that_is_in_use_even_if_all_free_ones_are_its_own(machine: FakeMachine) -> None:
    with other_job():
        gpus = free_gpus({})
    assert gpus.environment(gpus.names) == {"CUDA_VISIBLE_DEVICES": "1"}


def test_failed_reservation_of_several_leaves_none(machine: FakeMachine) -> None:
    gpus = find_gpus({}).gpus[::-1]
    with other_job():
        with pytest.raises(InputError):
            reserve_gpus(gpus).__enter__()
        assert free_names() == ("1",)


def test_reservation_ends_with_the_block(machine: FakeMachine) -> None:
    with reserve_gpus(find_gpus({}).gpus):
        assert free_names() == ()
    assert free_names() == ("0", "1")


def test_forked_process_does_not_keep_a_reservation(machine: FakeMachine) -> None:
    with reserve_gpus(find_gpus({}).gpus):
        child = os.fork()
        if not child:
            signal.pause()
    try:
        assert free_names() == ("0", "1")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_other_users_can_lock_the_files(machine: FakeMachine) -> None:
    umask = os.umask(0o077)
    try:
        free_names()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(gpu_reservation.FOLDER.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(path.stat().st_mode) for path in gpu_reservation.FOLDER.iterdir()} == {0o644}


def test_where_no_file_can_be_made_nothing_is_reserved(machine: FakeMachine) -> None:
    gpu_reservation.FOLDER.write_text("a file is where the folder belongs")
    with reserve_gpus(find_gpus({}).gpus):
        assert free_names() == ("0", "1")


def test_link_in_place_of_a_file_is_not_followed(machine: FakeMachine, tmp_path: Path) -> None:
    free_names()
    path, target = gpu_reservation.FOLDER / "GPU-a0", tmp_path / "target"
    path.unlink()
    path.symlink_to(target)
    with reserve_gpus(find_gpus({}).gpus):
        assert not target.exists()


def test_names_of_gpus_stay_in_the_folder(machine: FakeMachine) -> None:
    with reserve_gpus([Gpu("MIG-GPU-a0/1/0"), Gpu("GPU-../../x")]):
        names = sorted(path.name for path in gpu_reservation.FOLDER.iterdir())
    assert names == ["gpuGPU-.._.._x", "gpuMIG-GPU-a0_1_0"]
