"""What ncflow raises: `BadInput` for arguments, `RunFailed` for what happens to a run from outside."""

from __future__ import annotations

from typing import Any


class BadInput(ValueError):
    """An argument that cannot be accepted.

    The message is one line that names the argument, the value given and what is accepted; the command line prints
    it as it is and exits with code 2.
    """

    def __init__(self, argument: str, value: Any, accepted: str):
        shown = " ".join(f"{value!r}".split())
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"{argument} = {shown}: {accepted}")
        self.argument = argument


def require(condition: bool, argument: str, value: Any, accepted: str) -> None:
    """Raise `BadInput` for `argument` unless `condition` holds."""
    if not condition:
        raise BadInput(argument, value, accepted)


class RunFailed(RuntimeError):
    """A run that was ended from outside; the message is one line, and the command line exits with code 1."""
