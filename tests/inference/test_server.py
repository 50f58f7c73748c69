import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise

import orjson
import psutil
import pytest
from pydantic import SecretStr

from rollmill.errors import InputError, ServingError
from rollmill.inference import machine
from rollmill.inference import server as server_module
from rollmill.inference.adapter import read_adapter
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import EndpointPool
from rollmill.inference.probe import ListedModel, healthy, served_models
from rollmill.inference.scripted import Script
from rollmill.inference.server import ModelServer, ServerConfig
from tests.inference.adapters import write_adapter
from tests.inference.processes import living
from tests.waiting import wait_until


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "m_vllm.log"


@pytest.fixture(autouse=True)
def _nothing_stays():
    us = psutil.Process()
    files, children = us.num_fds(), us.children(recursive=True)
    yield
    assert [child for child in us.children(recursive=True) if child not in children] == []
    assert us.num_fds() <= files  # what tests before have left may be closed meanwhile


def model_server(
    log, *, port=None, api_key=None, model_path="some/model", model_name="m", config=None, adapter=None, **script
):
    arguments = ("--script", orjson.dumps(Script(**script).model_dump(exclude_unset=True)).decode())
    settings = {"python": sys.executable, "arguments": arguments, "grace_s": 5.0} | (config or {})
    return ModelServer(
        ServerConfig(module="rollmill.inference.scripted", **settings),
        model_path=model_path,
        model_name=model_name,
        adapter=adapter,
        log_path=log,
        port=port,
        api_key=api_key,
    )


def tree(server):
    return [child.pid for child in psutil.Process(server.pid).children(recursive=True)] + [server.pid]


def test_a_server_for_the_time_of_the_block(log):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with model_server(log, port=port, children=True) as server:
        url = f"http://127.0.0.1:{port}/v1"
        assert server.endpoint.base_url == url
        assert served_models(url) == {"m": ListedModel("m", "sglang")}
        assert server.restarts == 0
        assert log.read_text() == f"serving on port {port}\n"
        pids = tree(server)
        assert len(pids) == 4
    assert not living(pids)
    assert not healthy(url)


def test_nothing_is_left_when_the_block_raises(log):
    pids = []

    def run():
        with model_server(log, children=True) as server:
            pids.extend(tree(server))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(pids) == 4
    assert not living(pids)


def test_it_waits_until_the_server_is_ready(log):
    with model_server(log, start_s=0.7) as server:
        assert healthy(server.endpoint.base_url)


def test_wrong_model_name_is_reported(log):
    script = ("--served-model-name", "other")
    with pytest.raises(ServingError, match="does not serve 'm' but 'other'"):
        model_server(log, config={"arguments": script}).__enter__()


def test_a_server_that_is_never_ready(log):
    with pytest.raises(ServingError, match=f"was not ready after 1 s: see {log}"):
        model_server(log, start_s=60, config={"startup_timeout_s": 1.0}).__enter__()


def test_a_server_that_dies_while_starting_is_reported_at_once(log):
    log.parent.mkdir()
    log.write_text("ValueError: of the server before\n")
    message = "one\nValueError: the model is too large\nthe end"
    with pytest.raises(ServingError) as caught:
        model_server(log, start_error=message).__enter__()
    expected = f"the server ended with code 1 while starting: ValueError: the model is too large (log: {log})"
    assert str(caught.value) == expected
    assert caught.value.details == message
    assert log.read_text() == f"ValueError: of the server before\n{message}\n"


def test_root_cause_is_reported(log):
    message = (
        "(EngineCore_DP0 pid=7) ERROR ValueError: Free memory on device (1/80 GiB) is less than desired\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    )
    with pytest.raises(ServingError, match=r"Free memory on device .*out of memory: lower --gpu-memory-utilization"):
        model_server(log, start_error=message).__enter__()


def test_a_server_that_dies_without_a_word(log):
    with pytest.raises(ServingError, match=r"ended with code 1 while starting \(log: "):
        model_server(log, start_error="bye").__enter__()


def test_only_the_last_lines_are_shown(log):
    message = "\n".join(f"line {number}" for number in range(100))
    with pytest.raises(ServingError) as caught:
        model_server(log, start_error=message).__enter__()
    assert caught.value.details.splitlines() == [f"line {number}" for number in range(75, 100)]


def test_a_port_in_use_starts_nothing(log):
    holder = f"process {os.getpid()} "
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ServingError, match=holder):
        model_server(log, port=listener.getsockname()[1]).__enter__()
    assert not log.exists()


def test_a_missing_interpreter_is_refused(log, monkeypatch):
    with pytest.raises(InputError, match=r"'/no/python' does not exist: .* `make setup`"):
        model_server(log, config={"python": "/no/python"}).__enter__()
    monkeypatch.setenv("ROLLMILL_VLLM_PYTHON", "/no/other")
    with pytest.raises(InputError, match="'/no/other' does not exist"):
        model_server(log, config={"python": ""}).__enter__()


def test_which_interpreter(monkeypatch):
    monkeypatch.setenv("ROLLMILL_VLLM_PYTHON", "/bin/sh")
    assert ServerConfig().interpreter() == "/bin/sh"
    assert ServerConfig(python="/bin/ls").interpreter() == "/bin/ls"
    monkeypatch.delenv("ROLLMILL_VLLM_PYTHON")
    monkeypatch.setattr(server_module, "SERVER_ENVIRONMENT", "no/such/python")
    assert ServerConfig().interpreter() == sys.executable


def test_server_command_and_environment(log, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "has_accelerator", lambda: True)
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    program = tmp_path / "echo"
    program.write_text('#!/bin/sh\necho "$@" $DO_NOT_TRACK $VLLM_NO_USAGE_STATS $HF_HUB_OFFLINE $MORE\nexit 1\n')
    program.chmod(0o755)
    config = {"python": str(program), "arguments": ("--port", "1"), "environment": {"MORE": "more"}}
    for path, offline in (("org/model", ""), (str(tmp_path), "1 ")):
        with pytest.raises(ServingError) as caught:
            model_server(log, model_path=path, config=config, port=None).__enter__()
        words = caught.value.details.split(" --port ")
        assert words[0] == f"-m rollmill.inference.scripted --model {path} --served-model-name m --host 127.0.0.1"
        assert words[2] == f"1 0 1 {offline}more"  # the user's own arguments come last, and win


def test_server_waits_for_its_adapter_after_a_restart_too(log, tmp_path):
    """The stand-in serves one name, the base's, unless its script names another one."""
    adapter = read_adapter(write_adapter(tmp_path / "adapter", r=9))
    with pytest.raises(ServingError, match="does not serve 'm' but 'm-base'"):
        model_server(log, adapter=adapter).__enter__()
    with model_server(log, adapter=adapter, model="m") as server:
        before = psutil.Process(server.pid).cmdline()
        kill_server(server)
        wait_until(lambda: server.restarts == 1 and not server.endpoint.recovering)
        after = psutil.Process(server.pid).cmdline()
    start = before.index("--served-model-name")
    expected = ["m-base", *adapter.arguments("m")]
    assert before[start + 1 : start + 1 + len(expected)] == expected
    assert after[after.index("-m") :] == before[before.index("-m") :]


def test_gpu_server_disables_the_flashinfer_sampler_by_default(monkeypatch):
    monkeypatch.delenv("VLLM_USE_FLASHINFER_SAMPLER", raising=False)
    arguments, environment = machine.machine_arguments("org/m", on_gpu=True)
    assert arguments == []
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")  # a user's own word
    assert machine.machine_arguments("org/m", on_gpu=True)[1]["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in machine.machine_arguments("org/m", on_gpu=False)[1]


def test_the_context_is_what_fits_unless_the_user_says_it():
    assert machine.length_arguments(("--dtype", "half")) == ["--max-model-len", "auto"]
    assert machine.length_arguments(("--config", "vllm.yaml")) == []  # its length would lose against the command line
    assert machine.length_arguments(("--config=vllm.yaml",)) == []


@pytest.mark.parametrize(
    ("version", "lengths"), [("0.32.0+cpu", ["auto", "512"]), ("0.14.0+cpu", ["auto", "512"]), ("0.13.2+cpu", ["512"])]
)
def test_a_vllm_is_started_by_the_command_that_stays(log, tmp_path, version, lengths):
    """A Python that has a vLLM, and shows what it is started with."""
    (tmp_path / "vllm/entrypoints/cli").mkdir(parents=True)
    for name in ("vllm/__init__.py", "vllm/entrypoints/__init__.py", "vllm/entrypoints/cli/__init__.py"):
        (tmp_path / name).touch()
    shown = "import sys; sys.exit('RuntimeError: ' + ' '.join(sys.argv[1:]))"
    (tmp_path / "vllm/entrypoints/cli/main.py").write_text(shown)
    (tmp_path / f"vllm-{version}.dist-info").mkdir()
    (tmp_path / f"vllm-{version}.dist-info" / "METADATA").write_text(f"Name: vllm\nVersion: {version}\n")
    environment = {"PYTHONPATH": str(tmp_path), "ROLLMILL_KIND": "cpu"}
    config = ServerConfig(python=sys.executable, environment=environment, arguments=("--max-model-len", "512"))
    server = ModelServer(config, model_path="org/m", model_name="m", log_path=log)
    with pytest.raises(
        ServingError, match=r"RuntimeError: serve org/m --served-model-name m --host 127\.0\.0\.1 --port"
    ):
        server.__enter__()
    words = log.read_text().split()
    assert words[-2:] == ["--max-model-len", "512"]
    assert [value for name, value in pairwise(words) if name == "--max-model-len"] == lengths


def test_stand_in_for_vllm_gets_no_model_length(log, tmp_path):
    (tmp_path / "stand_in.py").write_text("import sys; sys.exit(' '.join(sys.argv[1:]))")
    config = ServerConfig(module="stand_in", environment={"PYTHONPATH": str(tmp_path)})
    with pytest.raises(ServingError):
        ModelServer(config, model_path="org/m", model_name="m", log_path=log).__enter__()
    assert "--served-model-name m" in log.read_text()
    assert "--max-model-len" not in log.read_text()


def test_a_server_without_an_accelerator():
    arguments, environment = machine.cpu_arguments()
    assert "--enforce-eager" in arguments
    assert environment["VLLM_CPU_OMP_THREADS_BIND"].count(",") == len(os.sched_getaffinity(0)) - 1


def ask(server, count, seed=0):
    """`count` requests at once, through a client that tries again."""
    body = b'{"model": "m", "messages": [], "seed": %d}'

    async def run():
        async with ChatClient(EndpointPool([server.endpoint]), ClientConfig()) as client:
            return await asyncio.gather(*(client.complete(body % (seed + i)) for i in range(count)))

    return asyncio.run(run())


def kill_server(server):
    """SIGKILL to the server itself, not to its keeper."""
    (child,) = psutil.Process(server.pid).children()
    pids = tree(server)
    child.kill()
    return pids


@pytest.mark.slow
def test_a_server_killed_in_the_middle_is_started_again(log):
    with model_server(log, die_after=4, latency_s=0.1, children=True) as server:
        url, pids = server.endpoint.base_url, tree(server)
        answers = ask(server, 3)
        assert [answer.calls for answer in answers] == [1, 1, 1]
        (answer,) = ask(server, 1, seed=9)  # the fourth request of the first process
        assert answer.text == "It is <answer>9</answer>."
        assert answer.calls > 1
        assert server.restarts == 1
        assert server.endpoint.base_url == url
        assert server.endpoint.fatal_error is None
        assert not server.endpoint.recovering
        assert not living(pids)
        assert log.read_text().count("serving on port") == 2
        pids = tree(server)
    assert not living(pids)


def test_restarts_are_bounded(log):
    with model_server(log, config={"max_restarts": 1}) as server:
        kill_server(server)
        wait_until(lambda: server.restarts == 1 and not server.endpoint.recovering)
        kill_server(server)
        wait_until(lambda: server.endpoint.fatal_error)
        assert server.endpoint.fatal_error == f"the server ended with code 137 after 1 restarts: see {log}"
        with pytest.raises(ServingError, match="code 137 after 1 restarts"):
            ask(server, 1)


def test_the_keeper_may_be_killed_too(log):
    with model_server(log, children=True) as server:
        pids = tree(server)
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: server.restarts == 1 and not server.endpoint.recovering)
        assert not living(pids)
        assert healthy(server.endpoint.base_url)


def test_a_restart_that_fails(log, tmp_path):
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    with model_server(log, config={"python": str(python)}) as server:
        python.unlink()
        kill_server(server)
        wait_until(lambda: server.endpoint.fatal_error)
        assert "does not exist" in server.endpoint.fatal_error


def test_a_restart_that_dies_while_starting(log, tmp_path):
    switch = tmp_path / "sitecustomize.py"
    switch.write_text("")
    with model_server(log, config={"environment": {"PYTHONPATH": str(tmp_path)}}) as server:
        switch.write_text("import sys; sys.exit('RuntimeError: no device')")
        kill_server(server)
        wait_until(lambda: server.endpoint.fatal_error)
        assert "while starting" in server.endpoint.fatal_error


def test_the_block_may_end_just_before_a_restart(log, monkeypatch):
    with model_server(log) as server:
        restarting = threading.Event()

        def slow():
            restarting.set()
            time.sleep(0.5)
            return False

        monkeypatch.setattr(machine, "has_accelerator", slow)
        kill_server(server)
        assert restarting.wait(10)
    # The fixture finds what is left.


@pytest.mark.parametrize("after_s", [0.0, 0.6])
def test_the_block_may_end_in_the_middle_of_a_restart(log, after_s):
    with model_server(log) as server:
        pids = kill_server(server)
        wait_until(lambda: not living(pids))
        time.sleep(after_s)


def test_the_server_ends_with_a_killed_owner(log, tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(f"""
import sys, time
from pathlib import Path
from rollmill.inference.server import ModelServer, ServerConfig

arguments = ("--script", '{{"children": true}}')
config = ServerConfig(module="rollmill.inference.scripted", python=sys.executable, arguments=arguments)
with ModelServer(config, model_path="m", model_name="m", log_path=Path({str(log)!r})) as server:
    print(server.pid, flush=True)
    time.sleep(600)
""")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as process:
        keeper = psutil.Process(int(process.stdout.readline()))
        pids = [keeper.pid, *(child.pid for child in keeper.children(recursive=True))]
        assert len(pids) == 4
        process.kill()
    wait_until(lambda: not living(pids))


def test_the_key_is_used_to_ask_and_never_shown(log, caplog):
    caplog.set_level("DEBUG")
    with model_server(log, api_key=SecretStr("sk-secret")) as server:
        command = psutil.Process(server.pid).cmdline()
    assert "sk-secret" not in " ".join(command) + caplog.text + log.read_text()
