"""The Prefect server's automations: mark dead runs as crashed, restart crashed runs once, send notifications."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
_DEPLOYED: dict[str, str | list[str]] = {
    "prefect.resource.role": "deployment",
    "prefect.resource.id": "prefect.deployment.*",
}
_FIRST_CRASH = ["0", "1"]
"""A run's count of starts: 1 at its first crash while it runs, 0 if a worker took it and never started it.

A run that never started is restarted each time, since nothing of it was tried yet.
"""
_DEDUPLICATION = timedelta(seconds=10)
"""Prefect's server may deliver an event several times: within this time only the first counts."""
_STARTING_S = 600.0
"""Seconds from a worker's claim of a run to the run's start."""


def automations(*, silent_s: float, late_s: float, notification: UUID | None) -> Iterator[AutomationCore]:
    """Yield all automations; those that send notifications only if there is a notification block.

    `silent_s`: seconds without a heartbeat after which a run is dead; `late_s`: seconds that a run may be late before a
    notification is sent.
    """
    # The names identify the automations on servers that have them already: do not change them.
    yield AutomationCore(
        name="rollmill: a silent run has crashed",
        description="Marks runs without a heartbeat as crashed: their process or machine has ended.",
        trigger=_on_missing_event({"prefect.flow-run.heartbeat"}, {"prefect.flow-run.heartbeat", *_ENDS}, silent_s),
        actions=[_mark_crashed(f"no heartbeat for {silent_s:g} s: its process or its machine has ended")],
    )
    yield AutomationCore(
        name="rollmill: a run that never began has crashed",
        description="Marks runs as crashed that a worker took and did not start.",
        trigger=_on_missing_event(
            {"prefect.flow-run.Pending"},
            {"prefect.flow-run.Running", "prefect.flow-run.AwaitingConcurrencySlot", *_ENDS},
            _STARTING_S,
        ),
        actions=[_mark_crashed(f"not begun {_STARTING_S:g} s after a worker took it")],
    )
    yield AutomationCore(
        name="rollmill: a crashed run is started again, once",
        description="Restarts a crashed run once: it continues from its journal, on whichever worker takes it.",
        trigger=_on_state("Crashed", {"prefect.run-count": _FIRST_CRASH}),
        actions=[_change_state(StateType.SCHEDULED, "AwaitingRetry", "crashed: started again, once")],
    )
    if notification is None:
        return
    yield AutomationCore(
        name="rollmill: tell of failures",
        description="Notifies of runs that failed. They are not restarted, since they would fail again.",
        trigger=_on_state("Failed"),
        actions=[_notify(notification, "failed")],
    )
    yield AutomationCore(
        name="rollmill: tell of crashes",
        description="Notifies of every crash, also of the second one of a run, after which it is not restarted.",
        trigger=_on_state("Crashed"),
        actions=[_notify(notification, "crashed")],
    )
    yield AutomationCore(
        name="rollmill: tell of late runs",
        description="Notifies of runs that should have begun long ago: no worker is there, or no slot is free.",
        # Not AwaitingConcurrencySlot: a run that waits for a slot is late, too.
        trigger=_on_missing_event(
            {"prefect.flow-run.Late"}, {"prefect.flow-run.Pending", "prefect.flow-run.Running", *_ENDS}, late_s
        ),
        actions=[_notify(notification, f"has been late for {late_s:g} s")],
    )


def _on_missing_event(after: set[str], expected: set[str], within_s: float) -> EventTrigger:
    """Build a trigger that fires if none of `expected` follows one of `after` in time."""
    return _trigger(
        posture=Posture.Proactive, after=after, expect=expected, within=timedelta(seconds=within_s), match={}
    )


def _on_state(state: str, match: dict[str, Any] | None = None) -> EventTrigger:
    """Build a trigger that fires when a run enters a state, if the run's labels have the values of `match`."""
    return _trigger(
        posture=Posture.Reactive, expect={f"prefect.flow-run.{state}"}, within=_DEDUPLICATION, match=match or {}
    )


def _trigger(*, match: dict[str, Any], **timing: Any) -> EventTrigger:
    """Build a trigger for runs of deployments only: a run in a terminal has a user who sees its end."""
    return EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*", **match},
        match_related=_DEPLOYED,
        for_each={"prefect.resource.id"},
        threshold=1,
        **timing,
    )


def _mark_crashed(message: str) -> ChangeFlowRunState:
    return _change_state(StateType.CRASHED, "Crashed", message)


def _change_state(state: StateType, name: str, message: str) -> ChangeFlowRunState:
    # Without force, the server applies its rules for state transitions, as to a worker's request.
    return ChangeFlowRunState(state=state, name=name, message=message, force=False)


def _notify(notification: UUID, event: str) -> SendNotification:
    return SendNotification(
        block_document_id=notification,
        subject="rollmill: {{ flow.name }} " + event,
        body="{{ flow_run.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
