"""Bags as a second reader sees them: mcap and mcap-ros2-support, which share no code with rosbags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def read_mcap(bag: Path) -> dict[str, list[tuple[int, Any]]]:
    """topic -> (log time, decoded message)."""
    from mcap_ros2.reader import read_ros2_messages

    path = bag if bag.is_file() else next(bag.glob("*.mcap"))
    found: dict[str, list[tuple[int, Any]]] = {}
    for message in read_ros2_messages(str(path)):
        found.setdefault(message.channel.topic, []).append((message.log_time_ns, message.ros_msg))
    return found


def stamps(messages: list[tuple[int, Any]]) -> list[int]:
    return [msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec for _, msg in messages]


def depth_of(msg: Any) -> Array:
    return np.frombuffer(msg.data, "<f4").reshape(msg.height, msg.width)
