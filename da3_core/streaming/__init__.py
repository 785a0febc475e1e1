"""From frames to placed depth: rigs, poses, windows, scale, world."""

from da3_core.streaming.cameras import UnusableFrame
from da3_core.streaming.clock import StaleStamp, is_restart
from da3_core.streaming.poses import PoseBuffer
from da3_core.streaming.stream import Stream
from da3_core.streaming.sync import Synchronizer

__all__ = ["PoseBuffer", "StaleStamp", "Stream", "Synchronizer", "UnusableFrame", "is_restart"]
