"""Ctrl-C and SIGTERM during training: finish the epoch, keep it, stop."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any


class Stopped(KeyboardInterrupt):
    """Training stopped early and can be resumed; the message says how, `code` is the exit code of a command."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Interrupts:
    """Within `with`, the first SIGINT or SIGTERM only sets `asked`, its number; a second one stops at once.

    Outside the main thread, where Python allows no handlers, nothing changes.
    """

    asked: int = 0

    def __enter__(self) -> Interrupts:
        self.before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: object) -> None:
        if self.asked:
            raise Stopped("stopped at once; the last checkpoint is kept", 128 + number)
        self.asked = number
        if os.isatty(2):
            os.write(2, b"\nncflow: stopping at the end of this epoch; once more to stop at once\n")
