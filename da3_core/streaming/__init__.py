"""From frames to placed depth: windows of views, scale, world."""

from da3_core.streaming.clock import StaleStampError
from da3_core.streaming.stream import Stream

__all__ = ["StaleStampError", "Stream"]
