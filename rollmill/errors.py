"""What rollmill raises on purpose. Everything else is a bug and keeps its traceback."""


class RollmillError(Exception):
    """Base of the errors whose message is meant for the user as it stands, on one line.

    `details` is what else helps, such as the last lines of a log: printed beneath, never needed to understand.
    """

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.details = details


class InputError(RollmillError):
    """The user gave something that cannot be used; the message says what, where, and what to do."""


class ServingError(RollmillError):
    """A model server did not start, answers for the wrong model, or is gone for good."""


class RunStoppedError(RollmillError):
    """A run stopped before its end; what is journaled stays, and the same command continues it."""
