"""The corpus: rollouts of one or many files, as a table of scalars and a way back to each record."""

import signal
import threading

import polars  # noqa: F401  # before the line below

# Importing Polars puts a handler of its own in front of Python's, and with it a main thread that waits for another one
# does not wake at Ctrl-C: a flow would run on to its end. Python's is put back.
if threading.current_thread() is threading.main_thread() and (_handler := signal.getsignal(signal.SIGINT)) is not None:
    signal.signal(signal.SIGINT, _handler)
