"""What to do with a stamp that does not come after the last one: one rule for everything that reads stamps.

A small step back is a frame that comes too late or twice: it is refused, and nothing changes. A large one is a clock that was set back,
a bag that loops or a simulation that restarts: the past belongs to another run, and is forgotten.
"""

from __future__ import annotations

RESTART_NS = 1_000_000_000  # back by this much: another run


class StaleStamp(ValueError):  # noqa: N818 - what it is, not what went wrong
    """A stamp that does not come after the last one: drop what bears it, and count it."""


def is_restart(last_ns: int | None, stamp_ns: int, name: str) -> bool:
    """Whether a new run begins at `stamp_ns`. Raises StaleStamp when it is not after `last_ns` and no new run either."""
    if last_ns is None or stamp_ns > last_ns:
        return False
    if last_ns - stamp_ns >= RESTART_NS:
        return True
    behind = (last_ns - stamp_ns) / 1e6
    raise StaleStamp(f"{name}: stamp {stamp_ns} ns does not come after the last one ({behind:.3f} ms behind): drop it")
