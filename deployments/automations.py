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
_FIRST_TIME = ["0", "1"]
"""Values of a run's count at its first crash."""


_ONCE = timedelta(seconds=10)
_STARTING_S = 600.0
"""Seconds from a worker's claim of a run to the run's start."""


def automations(*, silent_s: float, late_s: float, notification: UUID | None) -> Iterator[AutomationCore]:
    """Yield all automations; those that send notifications only if there is a notification block.

    `silent_s`: seconds without a heartbeat after which a run is dead; `late_s`: seconds that a run may be late before a
    notification is sent.
    """
    yield AutomationCore(
        name="rollmill: a silent run has crashed",
        description="No heartbeat: its process or its machine has ended. The run is marked as crashed.",
        trigger=_absent({"prefect.flow-run.heartbeat"}, {"prefect.flow-run.heartbeat", *_ENDS}, silent_s),
        actions=[_crashed(f"no heartbeat for {silent_s:g} s: its process or its machine has ended")],
    )
    yield AutomationCore(
        name="rollmill: a run that never began has crashed",
        description="A worker took the run and did not start it. The run is marked as crashed.",
        trigger=_absent(
            {"prefect.flow-run.Pending"},
            {"prefect.flow-run.Running", "prefect.flow-run.AwaitingConcurrencySlot", *_ENDS},
            _STARTING_S,
        ),
        actions=[_crashed(f"not begun {_STARTING_S:g} s after a worker took it")],
    )
    yield AutomationCore(
        name="rollmill: a crashed run is started again, once",
        description="The same run is scheduled again: it goes on from its journal, on whichever worker takes it.",
        trigger=_seen("Crashed", {"prefect.run-count": _FIRST_TIME}),
        actions=[_change(StateType.SCHEDULED, "AwaitingRetry", "crashed: started again, once")],
    )
    if notification is None:
        return
    yield AutomationCore(
        name="rollmill: tell of failures",
        description="A run failed, or crashed again after it was started again.",
        trigger=_seen("Failed"),
        actions=[_tell(notification, "failed")],
    )
    yield AutomationCore(
        name="rollmill: tell of crashes",
        description="A run crashed.",
        trigger=_seen("Crashed"),
        actions=[_tell(notification, "crashed")],
    )
    yield AutomationCore(
        name="rollmill: tell of late runs",
        description="A run should have begun long ago: no worker is there, or what it waits for takes long.",
        trigger=_absent(
            {"prefect.flow-run.Late"}, {"prefect.flow-run.Pending", "prefect.flow-run.Running", *_ENDS}, late_s
        ),
        actions=[_tell(notification, f"has been late for {late_s:g} s")],
    )


def _absent(after: set[str], expected: set[str], within_s: float) -> EventTrigger:
    return _trigger(
        posture=Posture.Proactive, after=after, expect=expected, within=timedelta(seconds=within_s), match={}
    )


def _seen(state: str, match: dict[str, Any] | None = None) -> EventTrigger:
    # Prefect's server may deliver an event several times: within some seconds only the first counts.
    return _trigger(posture=Posture.Reactive, expect={f"prefect.flow-run.{state}"}, within=_ONCE, match=match or {})


def _trigger(*, match: dict[str, Any], **how: Any) -> EventTrigger:
    """Build a trigger for runs of deployments only: a run in a terminal has a user who sees its end."""
    return EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*", **match},
        match_related=_DEPLOYED,
        for_each={"prefect.resource.id"},
        threshold=1,
        **how,
    )


def _crashed(why: str) -> ChangeFlowRunState:
    return _change(StateType.CRASHED, "Crashed", why)


def _change(state: StateType, name: str, message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=state, name=name, message=message, force=False)


def _tell(notification: UUID, what: str) -> SendNotification:
    return SendNotification(
        block_document_id=notification,
        subject=f"rollmill: {{{{ flow.name }}}} {what}",
        body="{{ flow_run.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
