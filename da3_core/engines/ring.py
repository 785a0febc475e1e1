"""What is kept of the views of a window."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class ViewRing:
    """A fixed buffer with one slot a view. A view stays until its slot is needed for another one."""

    def __init__(self, capacity: int, like: Sequence[Tensor]) -> None:
        """`like`: tensors (1, ...) of one view."""
        self.capacity = capacity
        self.kept = tuple(x.new_zeros((capacity, *x.shape[1:])) for x in like)  # each (S, ...)
        self._slot_of: dict[int, int] = {}  # view id -> slot, the longest unused first

    def missing(self, ids: Sequence[int]) -> list[int]:
        """Which of the views (their indices) have no slot."""
        return [i for i, view_id in enumerate(ids) if view_id not in self._slot_of]

    def slots(self, ids: Sequence[int]) -> list[int]:
        """Slots of views, all of which are kept."""
        for view_id in ids:
            self._slot_of[view_id] = self._slot_of.pop(view_id)
        return [self._slot_of[view_id] for view_id in ids]

    def keep(self, view_id: int, of_view: Sequence[Tensor], window: Sequence[int]) -> None:
        """Copies tensors (...) of a view into a slot that no view of the `window` has. A window has at most `capacity` views."""
        slot = self._free_slot(window)
        for kept, x in zip(self.kept, of_view, strict=True):
            kept[slot].copy_(x)
        self._slot_of[view_id] = slot

    def clear(self) -> None:
        """Forgets the views, not the memory: recorded graphs refer to it."""
        self._slot_of.clear()

    def _free_slot(self, window: Sequence[int]) -> int:
        if len(self._slot_of) < self.capacity:
            return min(set(range(self.capacity)) - set(self._slot_of.values()))
        return self._slot_of.pop(next(view_id for view_id in self._slot_of if view_id not in window))
