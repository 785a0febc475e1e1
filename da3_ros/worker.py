"""Between callbacks and the engine: callbacks put, one thread takes, and what comes too late is dropped, never queued."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
MAX_WAITING = 32  # a pose that never comes must not pile up images
POLL_S = 0.005  # what items wait for tells nobody when it comes: tf2's buffer belongs to others


class Inbox(Generic[T]):
    """Holds items until they may be worked on. The newest that may wins; older ones are dropped and counted.

    `is_ready` says whether an item has all it needs (its poses). One that has not waits up to `patience_s` and is ready then anyway, so
    that waiting blocks nobody: `put` returns at once, and items behind it can overtake.
    """

    def __init__(self, is_ready: Callable[[T], bool], patience_s: float, on_drop: Callable[[T], None]) -> None:
        self._is_ready = is_ready
        self._patience_s = patience_s
        self._on_drop = on_drop
        self._items: deque[tuple[float, T]] = deque()  # (deadline, item), oldest first
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> None:
        with self._changed:
            self._items.append((time.monotonic() + self._patience_s, item))
            self._drop_oldest(max(self._newest_ready(), len(self._items) - MAX_WAITING))
            self._changed.notify()

    def take(self) -> T | None:
        """The newest ready item, waited for; None once closed."""
        with self._changed:
            while not self._closed:
                newest = self._newest_ready()
                if newest >= 0:
                    self._drop_oldest(newest)
                    return self._items.popleft()[1]
                self._changed.wait(POLL_S if self._items else None)
        return None

    def clear(self) -> list[T]:
        """Takes out what waits, without calling it dropped."""
        with self._changed:
            items = [item for _, item in self._items]
            self._items.clear()
        return items

    @property
    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _newest_ready(self) -> int:
        now = time.monotonic()
        for i in range(len(self._items) - 1, -1, -1):
            deadline, item = self._items[i]
            if now >= deadline or self._is_ready(item):
                return i
        return -1

    def _drop_oldest(self, count: int) -> None:
        for _ in range(count):
            self._on_drop(self._items.popleft()[1])


class Worker(Generic[T]):
    """The one thread that works; an exception goes to `on_error` and the next item is taken."""

    def __init__(self, inbox: Inbox[T], work: Callable[[T], None], on_error: Callable[[Exception], None]) -> None:
        self._inbox = inbox
        self._work = work
        self._on_error = on_error
        self._thread = threading.Thread(target=self._run, name="da3-worker", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Takes nothing more and waits for the item in work; False when that took longer than `timeout_s`."""
        self._inbox.close()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._inbox.take()) is not None:
            self._outlive(item)

    def _outlive(self, item: T) -> None:
        try:
            self._work(item)
        except Exception as error:  # one bad image must not end the thread that all images need
            self._on_error(error)
