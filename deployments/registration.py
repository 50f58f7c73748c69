"""Registers blocks, pool, queues, deployments and automations: `python -m deployments.registration`.

Can be repeated: existing objects are updated, and schedules that somebody activated stay active.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from rollmill.config.command_line import parse_command_line, report_errors
from rollmill.config.parameter import parameter
from rollmill.errors import InputError, ServingError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PROG = "python -m deployments.registration"
ROOT = Path(__file__).resolve().parents[1]
POOL = "local"
GPU, CPU = "gpu", "cpu"
"""Queues: runs that need a GPU, and the others."""


class Registration(BaseModel):
    """Registers this project's blocks, queues, deployments and automations at a Prefect server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_runs: int = parameter(
        1, "Limits", "Runs on GPUs", "At a time, over all workers of the pool; more wait.", ge=1, le=10_000
    )
    cpu_runs: int = parameter(4, "Limits", "Other runs", "At a time; more wait.", ge=1, le=10_000)
    silent_s: float = parameter(
        120.0, "Limits", "Silence", "Seconds without a heartbeat after which a run counts as crashed.", ge=45
    )
    late_s: float = parameter(
        3600.0, "Notification", "Late", "Seconds that a run is late before a notification is sent.", ge=10
    )
    notify: str | None = parameter(
        None, "Notification", "Notification block",
        "Is sent runs that fail, crash or are late: TYPE/NAME, such as slack-webhook/team.", metavar="TYPE/NAME",
    )  # fmt: skip


def register(parameters: Registration) -> None:
    """Register everything at the server that `PREFECT_API_URL` names.

    Raises `InputError` for a notification block that does not exist, `ServingError` if the server does not answer or
    refuses a deployment.
    """
    from prefect.client.orchestration import get_client

    from blocks.kinds import BLOCKS

    for block in BLOCKS:
        block.register_type_and_schema()
    with get_client(sync_client=True) as client:
        _set_up_pool(client, {GPU: parameters.gpu_runs, CPU: parameters.cpu_runs})
        active = _active_schedules(client)
        _deploy()
        _switch_on(client, active)
        _automate(client, parameters, _block_id(client, parameters.notify) if parameters.notify else None)


def _set_up_pool(client: SyncPrefectClient, limits: dict[str, int]) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    for name, limit in limits.items():
        try:
            queue = client.read_work_queue_by_name(name, work_pool_name=POOL)
        except ObjectNotFound:
            client.create_work_queue(name, concurrency_limit=limit, work_pool_name=POOL)
        else:
            client.update_work_queue(queue.id, concurrency_limit=limit)


def _deploy() -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise ServingError("prefect.yaml was not deployed", details=(done.stdout + done.stderr)[-3000:])


def _active_schedules(client: SyncPrefectClient) -> set[tuple[UUID, str]]:
    """Return (deployment id, slug) of the active schedules."""
    return {
        (deployment.id, schedule.slug)
        for deployment in client.read_deployments()
        for schedule in deployment.schedules
        if schedule.active and schedule.slug
    }


def _switch_on(client: SyncPrefectClient, active: set[tuple[UUID, str]]) -> None:
    for deployment in client.read_deployments():
        for schedule in deployment.schedules:
            if (deployment.id, schedule.slug) in active and not schedule.active:
                client.update_deployment_schedule(deployment.id, schedule.id, active=True)


def _block_id(client: SyncPrefectClient, name: str) -> UUID:
    from prefect.exceptions import ObjectNotFound

    kind, _, block_name = name.partition("/")
    try:
        document = client.read_block_document_by_name(block_name, kind)
    except ObjectNotFound as error:
        raise InputError(
            f"--notify {name}: there is no such block on the Prefect server: `prefect block ls` lists them, "
            "the UI's Blocks page makes them"
        ) from error
    assert document.id is not None
    return document.id


def _automate(client: SyncPrefectClient, parameters: Registration, notification: UUID | None) -> None:
    from deployments.automations import automations

    for automation in automations(silent_s=parameters.silent_s, late_s=parameters.late_s, notification=notification):
        same = client.read_automations_by_name(automation.name)
        if same:
            client.update_automation(same[0].id, automation)
        else:
            client.create_automation(automation)


if __name__ == "__main__":
    with report_errors(PROG):
        register(parse_command_line(Registration, prog=PROG, description=Registration.__doc__ or "", examples=""))
