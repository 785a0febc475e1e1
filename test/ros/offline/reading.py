"""Bags as a second reader sees them: mcap and mcap-ros2-support, which share no code with rosbags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def read_mcap(bag: Path) -> dict[str, list[tuple[int, Any]]]:
    """topic -> (log time, decoded message)."""
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    found: dict[str, list[tuple[int, Any]]] = {}
    with (bag if bag.is_file() else next(bag.glob("*.mcap"))).open("rb") as file:
        for _, channel, message, msg in make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages():
            found.setdefault(channel.topic, []).append((message.log_time, msg))
    return found


def stamps(messages: list[tuple[int, Any]]) -> list[int]:
    return [msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec for _, msg in messages]


def depth_of(msg: Any) -> Array:
    return np.frombuffer(msg.data, "<f4").reshape(msg.height, msg.width)
