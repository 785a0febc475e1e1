"""Message types for bags: those of the oldest supported distribution, and our own from msg/."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

import da3_ros

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

PACKAGE = Path(da3_ros.__file__).parent
MESSAGE_FOLDERS = (
    PACKAGE / "msg",
    PACKAGE.parent / "msg",
    *(prefix / "share/da3/msg" for prefix in PACKAGE.parents),
)  # pip, source, colcon


@cache
def load_typestore() -> Typestore:
    """ROS 2 Humble's types (every later distribution reads them) and da3's."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    ours: dict[str, Any] = {}
    for path in sorted(_message_folder().glob("*.msg")):
        ours |= get_types_from_msg(path.read_text(), f"da3/msg/{path.stem}")
    store.register(ours)
    return store


def _message_folder() -> Path:
    for folder in MESSAGE_FOLDERS:
        if (folder / "StreamStatus.msg").is_file():
            return folder
    raise FileNotFoundError("da3's .msg files are not installed beside da3_ros: install the package again")


class RosbagsTypes:
    """rosbags' message classes, for to_msg. Sequences are numpy arrays."""

    def __init__(self, store: Typestore) -> None:
        self._types = store.types

    def message(self, name: str, /, **fields: Any) -> Any:
        return self._types[name](**fields)

    def sequence(self, values: npt.NDArray[Any], /) -> npt.NDArray[Any]:
        return values
