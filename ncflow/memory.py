"""Whether a run fits into memory, foreseen before it begins."""

from __future__ import annotations

import os

import torch

from ncflow.errors import BadInput

#: States of a group of lanes that a step holds at once: stages, error, scales, interpolant and their temporaries.
STAGES = 24
#: Numbers recorded of a lane at a time, about.
COLUMNS = 40


def free(device: torch.device) -> int | None:
    """Bytes that can still be had on `device`; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def estimate(lanes: int, numbers: int, together: int, times: int, kept: int) -> int:
    """Bytes of a run in double precision.

    Args:
        lanes, numbers: states, and numbers in each (twice: where it starts and where it stands).
        together: lanes that step together.
        times, kept: recorded times, and how many states of a lane wait to be measured.
    """
    return 8 * (numbers * (2 * lanes + together * (STAGES + kept)) + lanes * times * COLUMNS)


def check(needed: int, device: torch.device, lanes: int, times: int) -> None:
    """Refuse what cannot fit.

    Raises:
        BadInput: more is needed than is free on the device.
    """
    there = free(device)
    if there is not None and needed > there:
        raise BadInput("lanes", lanes, f"fewer, or fewer than the {times} recorded times: the run needs about "
                       f"{_size(needed)}, {_size(there)} of {device.type} memory are free")  # fmt: skip


def _size(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
