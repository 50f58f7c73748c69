"""A Dask worker's process here: Ctrl-C at the terminal, which reaches every process, is its flow's to answer."""

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
    """Return the nanny of a process that does not get SIGINT while it starts, and whose start ends at an interruption.

    See `dask_setup` for SIGINT later on.
    """
    from distributed import Nanny
    from distributed.core import Status

    class ShieldingNanny(Nanny):
        async def instantiate(self) -> Status:
            if noted():  # a signal to the whole group has ended the worker, too: there is no other one any more
                return Status.failed
            resource_tracker.ensure_running()  # the first process of all starts it, and unblocks SIGINT then
            # In the thread of the cluster's event loop. Threads that it starts inherit the mask, as do their processes.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            starting = asyncio.ensure_future(super().instantiate())
            while not (await asyncio.wait([starting], timeout=LOOK_S))[0]:
                if noted() and self.process is not None and self.process.process is not None:
                    await self.process.process.kill()  # which fails the start, for which the flow's main thread waits
            return await starting

    return ShieldingNanny


def dask_setup(worker: Worker) -> None:
    """Make SIGINT do nothing from now on; Dask calls this in the worker's main thread, as it preloads this module.

    Neither blocked nor ignored, since what it starts would inherit that.
    """
    from tasks.worker_guard import DeadlockGuard

    DeadlockGuard().setup(worker)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # at its end it tells of a scheduler that is gone
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTSTP, watch.stop_process)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
