"""The automations, without a server."""

from uuid import uuid4

from deployments.automations import automations


def test_failures_and_every_crash_are_notified_and_first_crashes_restarted() -> None:
    by_name = {
        automation.name: automation for automation in automations(silent_s=120, late_s=3600, notification=uuid4())
    }
    crash, failure = by_name["rollmill: tell of crashes"], by_name["rollmill: tell of failures"]
    assert crash.trigger.expect == {"prefect.flow-run.Crashed"}
    assert "prefect.run-count" not in crash.trigger.match.root
    assert failure.trigger.expect == {"prefect.flow-run.Failed"}
    assert failure.actions[0].subject == "rollmill: {{ flow.name }} failed"
    restart = by_name["rollmill: a crashed run is started again, once"]
    assert restart.trigger.match.root["prefect.run-count"] == ["0", "1"]


def test_nothing_is_sent_without_a_notification_block() -> None:
    assert len(list(automations(silent_s=120, late_s=3600, notification=None))) == 3
