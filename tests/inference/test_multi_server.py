"""Several servers at a time: the assignment of GPUs."""

import pytest

from rollmill.errors import InputError
from rollmill.inference import multi_server
from rollmill.inference.multi_server import assign_devices, can_start_together, device_shares
from rollmill.inference.server import ServerConfig

CONFIG = ServerConfig(arguments=("--x",), environment={"MORE": "more"})


@pytest.fixture
def devices(monkeypatch):
    """Makes this a machine with the devices that the environment shows; None for one without any."""

    def show(names):
        monkeypatch.setattr(multi_server, "has_accelerator", lambda *_: names is not None)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names or "")

    return show


def test_one_server_has_all_of_the_machine(devices):
    devices("0,1")
    assert assign_devices(CONFIG, 1) == [CONFIG]
    assert not can_start_together([CONFIG])


def test_each_has_devices_of_its_own_where_there_are_enough(devices):
    devices("0,3,4,GPU-7,9")
    configs = assign_devices(CONFIG, 2)
    assert [config.environment["CUDA_VISIBLE_DEVICES"] for config in configs] == ["0,3", "4,GPU-7"]
    assert {config.environment["MORE"] for config in configs} == {"more"}
    assert {config.arguments for config in configs} == {("--x",)}
    assert can_start_together(configs)


def test_a_user_s_own_choice_of_devices_counts(devices):
    devices("0")
    configs = assign_devices(ServerConfig(environment={"CUDA_VISIBLE_DEVICES": "5,6"}), 2)
    assert [config.environment["CUDA_VISIBLE_DEVICES"] for config in configs] == ["5", "6"]


def test_servers_on_one_device_share_memory_and_start_in_turn(devices):
    devices("0,1")
    configs = assign_devices(CONFIG, 3)
    assert [config.arguments for config in configs] == [("--gpu-memory-utilization", "0.300", "--x")] * 3
    assert not can_start_together(configs)
    chosen = ServerConfig(environment={"CUDA_VISIBLE_DEVICES": "5"})
    assert not can_start_together(assign_devices(chosen, 2))


def test_processes_have_devices_of_their_own(devices):
    devices("0,3,4,GPU-7,9")
    assert device_shares(2, CONFIG) == [{"CUDA_VISIBLE_DEVICES": "0,3"}, {"CUDA_VISIBLE_DEVICES": "4,GPU-7"}]
    with pytest.raises(InputError, match=r"^--gpu_workers 6: there are 5 GPUs here: give at most as many$"):
        device_shares(6, CONFIG)
    with pytest.raises(InputError, match="--server_block sets CUDA_VISIBLE_DEVICES"):
        device_shares(2, ServerConfig(environment={"CUDA_VISIBLE_DEVICES": "5,6"}))
    devices(None)
    assert device_shares(2, CONFIG) == [{}, {}]


def test_without_an_accelerator_nothing_is_placed(devices):
    devices(None)
    assert assign_devices(CONFIG, 2) == [CONFIG, CONFIG]
    assert not can_start_together([CONFIG, CONFIG])
