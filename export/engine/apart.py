"""One function in a process of its own, which ends when the caller is interrupted, and dies with it.

A compiler cannot be asked to stop in the middle: Python's handler of Ctrl-C would wait until it is done. So the process hears nothing of
Ctrl-C, and is killed by whoever waits for it; and by the kernel, where that one is killed itself. Knows nothing of what is run.
"""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Given = TypeVar("Given")
Found = TypeVar("Found")

_PR_SET_PDEATHSIG = 1
"""Of Linux' prctl.h: the signal that a process gets when its parent is gone."""


class ProcessDied(Exception):
    """The process ended without an answer. `signal`: what killed it; 0 where it ended by itself."""

    def __init__(self, code: int) -> None:
        super().__init__(f"ended with code {code}")
        self.signal = max(0, -code)


def apart(function: Callable[[Given], Found], given: Given) -> Found:
    """What `function` returns or raises for `given`, both of which another process can be sent. Raises `ProcessDied`.

    Memory goes back whole, and a crash is an answer. After an exception here, Ctrl-C among them, the process is gone.
    """
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    process = get_context("spawn").Process(target=_run, args=(sender, os.getpid(), function, given), daemon=True)
    resource_tracker.ensure_running()  # else `start` does, and unblocks SIGINT
    try:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the process inherits it, and keeps it
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sender.close()
        found, error = receiver.recv()
    except EOFError:
        process.join()
        raise ProcessDied(process.exitcode or 0) from None
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        receiver.close()
    if error is not None:
        raise error
    answer: Found = found
    return answer


def _run(sender: Connection, parent: int, function: Callable[[Any], Any], given: Any) -> None:
    """Of the new process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before that
        os._exit(1)
    try:
        answer: tuple[Any, Exception | None] = (function(given), None)
    except Exception as error:  # noqa: BLE001  whoever waits judges it
        error.add_note(f"In its process:\n{traceback.format_exc()}")
        answer = (None, error)
    sender.send(answer)
