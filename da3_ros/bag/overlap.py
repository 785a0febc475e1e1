"""Work that overlaps: items made ahead by one thread, items consumed by another. Queues are bounded, errors come back to the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")
POLL_S = 0.05  # how soon a waiting thread sees that the other end is gone


class _End:
    """Follows the last item."""


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def made_ahead(items: Iterable[T], size: int) -> Generator[T, None, None]:
    """The same items in the same order, made by a thread of its own at most `size` ahead of their use.

    What the iterable raises is raised here, after the items before it. Closing the generator stops the thread.
    """
    queue: Queue[T | _End | _Failure] = Queue(size)
    stopped = threading.Event()

    def make() -> None:
        last: _End | _Failure = _End()
        try:
            for item in items:
                if not _put(queue, item, stopped):
                    return
        except BaseException as error:  # handed over to the thread that waits for it
            last = _Failure(error)
        _put(queue, last, stopped)

    thread = threading.Thread(target=make, name="da3-read", daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join()


class Consumer(Generic[T]):
    """Hands items to a function that runs in another thread."""

    def __init__(self, consume: Callable[[T], None], size: int) -> None:
        self._consume = consume
        self._queue: Queue[T | _End] = Queue(size)
        self._failed = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="da3-write", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Waits while the queue is full; raises what the function raised for an earlier item."""
        if not _put(self._queue, item, self._failed):
            self.finish()

    def finish(self) -> None:
        """Waits until every item is consumed; raises what the function raised."""
        _put(self._queue, _End(), self._failed)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not isinstance(item := self._queue.get(), _End):
                self._consume(item)
        except BaseException as error:  # raised again in the thread that puts
            self._error = error
            self._failed.set()


@contextmanager
def consumed(consume: Callable[[T], None], size: int) -> Iterator[Callable[[T], None]]:
    """`with consumed(write, 8) as put:` every put item is consumed, in order and by another thread, before the block is left."""
    consumer = Consumer(consume, size)
    try:
        yield consumer.put
    finally:
        consumer.finish()


def _put(queue: Queue[T], item: T, cancelled: threading.Event) -> bool:
    while not cancelled.is_set():
        try:
            queue.put(item, timeout=POLL_S)
            return True
        except Full:  # noqa: PERF203
            continue
    return False
