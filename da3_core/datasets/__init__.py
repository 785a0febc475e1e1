"""Recordings on disk, one reader per layout, all giving `RecordedFrame`s."""

from da3_core.datasets.recording import RecordedFrame, Recording, fit_frame
from da3_core.datasets.samples import pick_frames, samples_from_frames
from da3_core.datasets.tum_rgbd import TumRgbdRecording, TumRgbdWriter

__all__ = ["RecordedFrame", "Recording", "TumRgbdRecording", "TumRgbdWriter", "fit_frame", "pick_frames", "samples_from_frames"]
