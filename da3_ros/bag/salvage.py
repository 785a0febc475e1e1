"""What can be read of a damaged bag file, copied to an undamaged one. The damaged file is never written to."""

from __future__ import annotations

import io
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from rosbags.rosbag1.reader import Header

MCAP_MAGIC = b"\x89MCAP0\r\n"
MCAP_FOOTER, MCAP_CHUNK, MCAP_DATA_END = 0x02, 0x06, 0x0F
MCAP_EMPTY_FOOTER = struct.pack("<BQQQI", MCAP_FOOTER, 20, 0, 0, 0)  # no summary: readers scan


def salvage(path: Path, folder: Path) -> Path | None:
    """A copy in `folder` of what can be read of one .mcap, .db3 or .bag file; None when that is nothing."""
    copy = {".mcap": _salvage_mcap, ".db3": _salvage_sqlite, ".bag": _salvage_ros1}[path.suffix]
    target = folder / path.name
    return target if copy(path, target) else None


def _salvage_mcap(path: Path, target: Path) -> bool:
    """Every whole record up to the first that is cut off or does not decompress, then a footer without a summary."""
    with path.open("rb") as source:
        if source.read(8) != MCAP_MAGIC:
            return False
        end = _end_of_mcap_data(source, path.stat().st_size)
        source.seek(0)
        with target.open("wb") as copy:
            _copy_bytes(source, copy, end)
            copy.write(MCAP_EMPTY_FOOTER + MCAP_MAGIC)
    return end > len(MCAP_MAGIC)


def _end_of_mcap_data(source: BinaryIO, file_size: int) -> int:
    while True:
        start = source.tell()
        head = source.read(9)
        if len(head) < 9:
            return start
        opcode, size = struct.unpack("<BQ", head)
        end = start + 9 + size
        if opcode in (MCAP_DATA_END, MCAP_FOOTER) or end > file_size:
            return start
        if opcode == MCAP_CHUNK and not _is_whole_chunk(source.read(size)):
            return start
        source.seek(end)


def _is_whole_chunk(record: bytes) -> bool:
    from rosbags.rosbag2.storage_mcap import decompress

    try:
        _, _, size, crc, name_length = struct.unpack_from("<QQQII", record)
        compression = record[32 : 32 + name_length].decode()
        decompress(record[40 + name_length :], compression, size, crc)
    except Exception:  # three libraries decompress, each with errors of its own; any of them means a damaged chunk
        return False
    return True


def _salvage_sqlite(path: Path, target: Path) -> bool:
    """The tables row by row, until a page is missing."""
    source = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    copy = sqlite3.connect(target)
    try:
        source.execute("PRAGMA writable_schema=ON")  # lets SQLite open a file that is shorter than its header says
        tables = source.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        for _, sql in tables:
            copy.execute(sql)
        copied = [_copy_rows(source, copy, name) for name, _ in sorted(tables, key=lambda table: str(table[0]) == "messages")]
        copy.commit()
    except sqlite3.DatabaseError:
        return False
    finally:
        source.close()
        copy.close()
    return bool(copied and copied[-1])


def _copy_rows(source: sqlite3.Connection, copy: sqlite3.Connection, table: str) -> int:
    copied = 0
    cursor = source.execute(f"SELECT * FROM {table} ORDER BY rowid")  # noqa: S608 - a table's name cannot be a parameter
    placeholders = ", ".join("?" for _ in cursor.description)
    try:
        for row in cursor:
            copy.execute(f"INSERT INTO {table} VALUES ({placeholders})", row)  # noqa: S608
            copied += 1
    except sqlite3.DatabaseError:
        if table != "messages":
            raise
    return copied


def _salvage_ros1(path: Path, target: Path) -> bool:
    """The messages of every whole chunk, written again with an index."""
    from rosbags.rosbag1 import Writer

    connections: dict[int, Any] = {}
    with path.open("rb") as source, Writer(target) as writer:
        if source.readline() != b"#ROSBAG V2.0\n":
            return False
        for header, data in _ros1_messages(source):
            number = header.get_uint32("conn")
            if "topic" in header:
                connections.setdefault(number, _add_ros1_connection(writer, header, data))
            else:
                writer.write(connections[number], header.get_time("time"), data)
    return bool(connections)


def _ros1_messages(source: BinaryIO) -> Iterator[tuple[Header, bytes]]:
    """Connection and message records in file order, until a record is cut off or a chunk does not decompress."""
    from rosbags.rosbag1.reader import RecordType, decompressors

    for header, data in _ros1_records(source):
        if header.get_uint8("op") != RecordType.CHUNK:
            continue
        try:
            chunk = decompressors[header.get_string("compression")](data)
        except Exception:  # bz2 and lz4 have errors of their own; any of them means a damaged chunk
            return
        for inner, payload in _ros1_records(io.BytesIO(chunk)):
            if inner.get_uint8("op") in (RecordType.CONNECTION, RecordType.MSGDATA):
                yield inner, payload


def _ros1_records(source: BinaryIO) -> Iterator[tuple[Header, bytes]]:
    from rosbags.rosbag1.reader import Header, ReaderError, read_bytes, read_uint32

    while source.read(1):
        source.seek(-1, io.SEEK_CUR)
        try:
            header = Header.read(source)
            yield header, read_bytes(source, read_uint32(source))
        except ReaderError:
            return


def _add_ros1_connection(writer: Any, header: Header, data: bytes) -> Any:
    from rosbags.rosbag1.reader import Header as Ros1Header
    from rosbags.typesys.msg import normalize_msgtype

    described = Ros1Header.read(io.BytesIO(struct.pack("<L", len(data)) + data))
    topic, msgtype = header.get_string("topic"), normalize_msgtype(described.get_string("type"))
    known = next((c for c in writer.connections if (c.topic, c.msgtype) == (topic, msgtype)), None)
    if known is not None:
        return known
    definition, md5sum = described.get_string("message_definition"), described.get_string("md5sum")
    return writer.add_connection(topic, msgtype, msgdef=definition, md5sum=md5sum)


def _copy_bytes(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count > 0:
        block = source.read(min(count, 1 << 22))
        target.write(block)
        count -= len(block)
