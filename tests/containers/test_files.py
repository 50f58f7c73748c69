"""The Dockerfile and the compose file: linters, and rules that linters do not check."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from tests.containers.reading import COMPOSE, DOCKERFILE, FOLDER, ROOT, SETTINGS, linked_folders, services, stages

PROGRAMS = Path(sys.executable).parent


def lint(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_passes_hadolint():
    lint(PROGRAMS / "hadolint", "--failure-threshold", "style", DOCKERFILE)


def test_compose_file_is_valid():
    lint(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_external_images_are_pinned():
    base = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    others = [service["image"] for service in services().values() if "build" not in service]
    assert base
    assert others
    for image in [base[1], *others]:
        assert re.fullmatch(r"\w+:\d+\.\d+[\w.-]*", image), image


def test_copied_files_exist_and_are_in_the_build_context():
    sent = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in sent if line.startswith("!")}
    assert sent[1] == "*"
    for name in allowed:
        assert (ROOT / name).exists(), name
    copied = [rest.split()[:-1] for parts in stages().values() for word, rest in parts if word == "COPY"]
    for name in {name for names in copied for name in names} - {"."}:
        assert (ROOT / name).exists(), name
        assert allowed & {str(parent) for parent in [Path(name), *Path(name).parents]}, name


def test_code_change_reinstalls_nothing():
    before = [name for name in stages() if name != "rollmill"]
    assert before == ["", "system", "locks", "environments-cpu", "environments-gpu"]
    copied = {
        source
        for name in before
        for word, rest in stages()[name]
        if word in {"COPY", "ADD"}
        for source in rest.split()[:-1]
    }
    needed = {f"scripts/{name}" for name in ("setup", "package_source", "debian_packages", "device_kind")}
    assert copied == {"requirements", "requirements/debian.txt", "pyproject.toml"} | needed


def test_placeholder_packages_are_those_of_pyproject():
    expected = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    match = re.search(r"for package in ([\w ]+);", next(rest for word, rest in stages()["locks"] if word == "RUN"))
    assert match
    assert [name.removesuffix("*") for name in sorted(expected)] == match[1].split()


def test_cpu_and_gpu_images_can_be_built():
    for kind in ("cpu", "gpu"):
        installed = [rest for word, rest in stages()[f"environments-{kind}"] if word == "RUN"]
        assert f"ROLLMILL_KIND={kind} scripts/setup" in installed[-1]
    assert "ROLLMILL_KIND" in (ROOT / "scripts" / "setup").read_text()


def test_gpu_image_has_a_compiler_and_requires_its_driver():
    parts = stages()["environments-gpu"]
    assert any("requirements/debian-gpu.txt" in rest for word, rest in parts if word == "RUN")
    assert {"g++", "python3-dev"} <= set((ROOT / "requirements/debian-gpu.txt").read_text().split())
    settings = dict(pair.split("=", 1) for word, rest in parts if word == "ENV" for pair in shlex.split(rest))
    locks = [(ROOT / f"requirements/{name}-gpu.txt").read_text() for name in ("training", "vllm")]
    runtimes = {re.search(r"^nvidia-cuda-runtime==(\d+\.\d+)\.", lock, re.MULTILINE)[1] for lock in locks}
    assert [settings["NVIDIA_REQUIRE_CUDA"]] == [f"cuda>={release}" for release in runtimes]
    assert settings["VLLM_USE_FLASHINFER_SAMPLER"] == "0"


@pytest.mark.parametrize("name", ["training", "vllm"])
def test_cuda_s_compiler_and_headers_are_of_one_release(name):
    lock = (ROOT / f"requirements/{name}-gpu.txt").read_text()
    parts = "cuda-cccl|cuda-crt|cuda-cupti|cuda-nvcc|cuda-nvrtc|cuda-runtime|nvjitlink|nvvm"
    releases = dict(re.findall(rf"^nvidia-({parts})==(\d+\.\d+)\.", lock, re.MULTILINE))
    assert len(releases) >= 4
    assert set(releases.values()) == {releases["cuda-runtime"]}


def test_processes_are_not_root_and_hold_no_capabilities():
    assert [rest for word, rest in stages()["rollmill"] if word == "USER"] == ["1000:1000"]
    for name, service in services().items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        assert "cap_add" not in service, name
        assert "build" not in service or service["cap_drop"] == ["ALL"], name


def test_server_is_local_and_database_is_private_to_it():
    started = services()
    assert {name for name, service in started.items() if "ports" in service} == {"server"}
    assert started["server"]["ports"] == ["127.0.0.1:4200:4200"]
    assert {name for name, service in started.items() if "database" in service.get("networks", [])} == {
        "postgres",
        "server",
    }
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["database"] == {"internal": True}


def test_services_have_health_checks_and_wait_for_dependencies():
    started = services()
    for name, service in started.items():
        healthcheck = service.get("healthcheck", {})
        assert "test" in healthcheck or name in {"setup", "worker-cpu", "worker-gpu"}, name  # a worker's is the image's
    assert started["setup"]["healthcheck"] == {"disable": True}
    assert any(word == "HEALTHCHECK" for word, _ in stages()["rollmill"])
    waits = {name: service.get("depends_on") for name, service in started.items()}
    set_up = {"setup": {"condition": "service_completed_successfully"}}
    assert waits == {
        "postgres": None,
        "server": {"postgres": {"condition": "service_healthy"}},
        "setup": {"server": {"condition": "service_healthy"}},
        "worker-cpu": set_up,
        "worker-gpu": set_up,
    }


def test_one_worker_a_kind_and_only_one_has_gpus():
    started = services()
    assert {name: service["profiles"] for name, service in started.items() if "profiles" in service} == {
        "worker-cpu": ["cpu"],
        "worker-gpu": ["gpu"],
    }
    devices = started["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert "deploy" not in started["worker-cpu"]
    for name in ("worker-cpu", "worker-gpu"):  # vLLM 0.32 wants 160 MiB, and says so only in its log
        assert started[name]["shm_size"] == "8gb"
    assert services({**SETTINGS, "COMPOSE_PROFILES": "gpu"})["worker-gpu"]["image"] == "rollmill:gpu"


def test_passwords_are_not_in_the_compose_file():
    for missing in SETTINGS:
        with pytest.raises(KeyError, match=missing):
            services({name: value for name, value in SETTINGS.items() if name != missing})
    secret = re.compile(r"password|token|secret|key|auth", re.IGNORECASE)
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable):
                assert value in {None, SETTINGS["POSTGRES_PASSWORD"]}, (name, variable)
    holders = {name for name, service in services().items() if SETTINGS["POSTGRES_PASSWORD"] in str(service)}
    assert holders == {"postgres", "server"}
    example = dict(line.split("=") for line in (FOLDER / ".env.example").read_text().splitlines() if "=" in line)
    assert example == {"COMPOSE_PROFILES": "cpu", "POSTGRES_PASSWORD": ""}
    assert ".env" in (FOLDER / ".gitignore").read_text().split()
    text = DOCKERFILE.read_text()
    assert not re.search(r"^(ARG|ENV)\b.*(PASSWORD|TOKEN|SECRET|KEY)", text, re.MULTILINE)


def test_the_server_finds_its_database():
    environment = services()["server"]["environment"]
    postgres = services()["postgres"]["environment"]
    code = (
        "from prefect.server.utilities.database import get_dialect\n"
        "from prefect.settings import get_current_settings\n"
        "from sqlalchemy.engine import make_url\n"
        "server = get_current_settings().server\n"
        "url = make_url(server.database.connection_url.get_secret_value())\n"
        "print(get_dialect(url.render_as_string()).name, url.host, url.username, url.password, url.database)\n"
        "print(server.ui.api_url, server.ui.static_directory)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    names = [postgres[f"POSTGRES_{name}"] for name in ("USER", "PASSWORD", "DB")]
    assert done.stdout.split() == ["postgresql", "postgres", *names, "http://127.0.0.1:4200/api", "/data/prefect-ui"]


@pytest.mark.slow
def test_commands_of_services_exist():
    commands = [service["command"] for service in services().values() if "command" in service]
    commands.append(yaml.safe_load(next(rest for word, rest in stages()["rollmill"] if word == "CMD")))
    for command in commands:
        if command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(command[2]), command
            continue
        words = [word for word in command[1:] if not word.startswith("-") and word != "local"]
        help_command = [sys.executable, "-m", "prefect", *words, "--help"]
        message = subprocess.run(help_command, capture_output=True, text=True, check=True).stdout
        for flag in [word.partition("=")[0] for word in command if word.startswith("--")]:
            assert flag in message, command
    assert len(commands) == 3


def test_default_output_folders_are_on_the_volume():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    parameters = [deployment["parameters"]["parameters"] for deployment in deployments]
    paths = [each[name] for each in parameters for name in ("output", "output_dir", "log_dir") if name in each]
    assert len(paths) >= 5
    for file in (ROOT / "rollmill").rglob("parameters.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for _, model in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if issubclass(model, BaseModel):
                fields = [model.model_fields.get(name) for name in ("output_dir", "log_dir")]
                paths += [field.default for field in fields if field and isinstance(field.default, str)]
    assert {Path(path).parts[0] for path in paths} <= linked_folders()
