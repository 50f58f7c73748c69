"""Protects local Dask worker processes from Ctrl-C: the terminal sends it to all processes, but the flow handles it."""

from __future__ import annotations

import asyncio
import logging
import signal
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from rollmill.terminal.interruption import LOOK_S, noted
from rollmill.terminal.stall_watch import watch

if TYPE_CHECKING:
    from distributed import Nanny, Worker


def nanny_class() -> type[Nanny]:
    """Return a nanny class that blocks SIGINT while its process starts, and cancels the start at an interruption.

    `dask_setup` handles SIGINT after the start.
    """
    from distributed import Nanny
    from distributed.core import Status

    class ShieldingNanny(Nanny):
        async def instantiate(self) -> Status:
            if noted():  # a signal to the process group has ended the worker, too: do not start another one
                return Status.failed
            resource_tracker.ensure_running()  # started with the first process, it would unblock SIGINT
            # In the thread of the cluster's event loop. Threads that it starts inherit the mask, and so do processes.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            starting = asyncio.ensure_future(super().instantiate())
            while not (await asyncio.wait([starting], timeout=LOOK_S))[0]:
                if noted() and self.process is not None and self.process.process is not None:
                    await self.process.process.kill()  # fails the start, for which the flow's main thread waits
            return await starting

    return ShieldingNanny


def dask_setup(worker: Worker) -> None:
    """Install a SIGINT handler that does nothing; Dask calls this in the worker's main thread as a preload.

    A handler, since child processes would inherit a blocked or ignored signal.
    """
    from tasks.worker_guard import DeadlockGuard

    DeadlockGuard().setup(worker)
    logging.getLogger("distributed").setLevel(
        logging.CRITICAL
    )  # at its end a worker complains that the scheduler has ended
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTSTP, watch.stop_process)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
