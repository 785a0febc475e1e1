"""Where what is kept of the views of a window lies."""

from __future__ import annotations

from collections.abc import Sequence


class ViewRing:
    """A fixed number of slots, one a view. A view stays until its slot is needed for another one."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._slot_of: dict[int, int] = {}  # view id -> slot, the longest unused first

    def missing(self, ids: Sequence[int]) -> list[int]:
        """Which of the views (their indices) have no slot."""
        return [i for i, view_id in enumerate(ids) if view_id not in self._slot_of]

    def slots(self, ids: Sequence[int]) -> list[int]:
        """Slots of a window's views, at most `capacity`; those that have none get one that no other view of the window has."""
        for view_id in ids:
            if view_id in self._slot_of:
                self._slot_of[view_id] = self._slot_of.pop(view_id)
        for view_id in ids:
            if view_id not in self._slot_of:
                self._slot_of[view_id] = self._free_slot(ids)
        return [self._slot_of[view_id] for view_id in ids]

    def clear(self) -> None:
        """Forgets the views."""
        self._slot_of.clear()

    def _free_slot(self, window: Sequence[int]) -> int:
        if len(self._slot_of) < self.capacity:
            return min(set(range(self.capacity)) - set(self._slot_of.values()))
        return self._slot_of.pop(next(view_id for view_id in self._slot_of if view_id not in window))
