"""A recording that is read: ROS 2 (MCAP, SQLite3) or ROS 1, whole or damaged."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .salvage import salvage
from .typestore import load_typestore

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import Connection
    from rosbags.typesys.store import Typestore

log = logging.getLogger(__name__)
BAG_SUFFIXES = (".mcap", ".db3", ".bag")


class BagError(ValueError):
    """A recording cannot be read or written, or what to do with it is not clear; the text is one line and names the remedy."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class DamagedError(BagError):
    """Reading stopped before the recording's end."""


class Recording(AbstractContextManager["Recording"]):
    """Connections and messages of the bag at `path`: a directory, or one .mcap, .db3 or .bag file.

    Where a file is cut off or its index is damaged, the readable part is copied below `scratch` (default: the system's temporary
    folder) until the end and `damage` says so. Raises BagError when nothing can be read.
    """

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        self.damage: str | None = None
        self._path = path
        self._scratch = scratch

    def __enter__(self) -> Recording:
        with ExitStack() as stack:
            self._copies = stack
            self._reader = stack.enter_context(closing(self._open()))
            self._opened = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._opened.close()

    @property
    def is_ros2(self) -> bool:
        return self._reader.is2

    @property
    def connections(self) -> Sequence[Connection]:
        return self._reader.connections

    @property
    def typestore(self) -> Typestore:
        return self._reader.typestore

    def deserialize(self, raw: bytes, msgtype: str) -> Any:
        """The message; raises BagError when its bytes do not fit its type."""
        try:
            return self._reader.deserialize(raw, msgtype)
        except Exception as error:  # generated code: index, struct and decoding errors mean the same here
            raise BagError(f"{msgtype} message of {len(raw)} bytes cannot be parsed: {error}") from error

    def serialize(self, msg: Any, msgtype: str) -> bytes:
        """What `deserialize` reads."""
        serialize = self.typestore.serialize_cdr if self.is_ros2 else self.typestore.serialize_ros1
        return bytes(serialize(msg, msgtype))

    def messages(
        self, connections: Sequence[Connection], stop_ns: int | None = None, start_ns: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """(connection, log time, bytes) in the order of log times, from `start_ns` to before `stop_ns`.

        Raises DamagedError where the recording cannot be read on.
        """
        if not connections:
            return
        try:
            yield from self._reader.messages(connections, start=start_ns, stop=stop_ns)
        except Exception as error:  # storage plugins and three decompressors have errors of their own
            raise DamagedError(f"{self._path} cannot be read to its end: {error}") from error

    def _open(self) -> AnyReader:
        if not self._path.exists():
            raise BagError(f"{self._path} does not exist")
        try:
            return _open_reader([self._path])
        except Exception as error:
            reason = str(error)
        files = _storage_files(self._path)
        readable = [found for file in files if (found := self._readable(file)) is not None]
        if not readable:
            raise BagError(f"{self._path} is no readable bag: {reason}")
        if self.damage is None:
            log.warning("%s: %s; reading %s without it", self._path, reason, ", ".join(file.name for file in files))
        try:
            return _open_reader(readable)
        except Exception as error:
            raise BagError(f"{self._path} is no readable bag: {error}") from error

    def _readable(self, file: Path) -> Path | None:
        try:
            _open_reader([file]).close()
        except Exception as error:
            self.damage = f"{file.name} is damaged ({error}); what can be read of it is processed"
            folder = self._copies.enter_context(tempfile.TemporaryDirectory(prefix=".da3-salvage-", dir=self._scratch))
            return salvage(file, Path(folder))
        return file


def _open_reader(paths: Sequence[Path]) -> AnyReader:
    from rosbags.highlevel import AnyReader

    reader = AnyReader(paths, default_typestore=load_typestore())
    reader.open()
    return reader


def _storage_files(path: Path) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.suffix in BAG_SUFFIXES]
