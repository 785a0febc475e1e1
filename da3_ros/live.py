"""What is alive while the node is active: images come in on the executor's thread, results go out on the worker's."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from da3_core import Engine, FrameResult, StaleStamp, Stream, Synchronizer, Uint8Array, is_restart

from .diagnostics import Health, Level
from .pipeline import Arrival, CameraState, EngineBrokenError, Pipeline
from .poses import Poses
from .recorder import Recorder
from .settings import Parameters
from .worker import Inbox, Worker

Arrivals = Sequence[Arrival]
STOP_S = 10.0  # longest that a deactivation waits for the image in work


def refuse_unfit(engine: Engine, parameters: Parameters) -> None:
    """Raises ValueError when the engine cannot do what the settings ask for."""
    Stream.refuse_unfit(engine, parameters.stream)  # a stream would have the engine forget what a run has seen


class LiveRun:
    """From activation to deactivation. `put`, `configure` and `reset` return at once; the worker calls `publish` and `on_failure`."""

    def __init__(
        self,
        engine: Engine,
        parameters: Parameters,
        cameras: Mapping[str, CameraState],
        poses: Poses,
        decode: Callable[[Any], Uint8Array],
        health: Health,
        recorder: Recorder,
        publish: Callable[[Sequence[FrameResult], float], None],
        on_failure: Callable[[EngineBrokenError], None],
    ) -> None:
        """publish(results, received_s) sends one set's results; its anchor's image came at that time of the monotonic clock."""
        self._parameters, self._poses, self._health, self._recorder = parameters, poses, health, recorder
        self._publish, self._on_failure = publish, on_failure
        self._camera_names = list(cameras)
        self._anchor = parameters.anchor_camera
        self._received_s = dict.fromkeys(self._camera_names, time.monotonic())
        self._last_stamp_ns: dict[str, int] = {}
        self._reset_asked = False
        self._adopted = parameters
        self._synchronizer = self._make_synchronizer()
        self._pipeline = Pipeline(engine, parameters, cameras, poses, decode, health)
        self._inbox: Inbox[Arrivals] = Inbox(self._knows_poses, parameters.node.pose_timeout_s, self._on_overload)
        self._worker = Worker(self._inbox, self._work, self._on_error)

    def put(self, arrival: Arrival) -> None:
        """An image has come."""
        self._health.received(arrival.camera)
        try:
            restarted = is_restart(self._last_stamp_ns.get(arrival.camera), arrival.stamp_ns, arrival.camera)
        except StaleStamp:
            self._health.drop("stamp not after the last one")
            return
        if restarted:
            self._begin_new_run(arrival.stamp_ns)
        self._last_stamp_ns[arrival.camera] = arrival.stamp_ns
        self._choose_anchor(arrival)
        self._unmatched[arrival.camera].append(arrival.stamp_ns)
        for arrivals in self._synchronizer.push(arrival):
            self._count_unmatched(arrivals)
            self._inbox.put(arrivals)

    def configure(self, parameters: Parameters) -> None:
        """New settings, from the next image on."""
        is_same_rig = parameters.stream.rig == self._parameters.stream.rig
        self._parameters = parameters
        if not is_same_rig:
            self._anchor = parameters.anchor_camera
            self._synchronizer = self._make_synchronizer()

    def reset(self) -> None:
        """The window, the scale and the world begin anew with the next image."""
        self._reset_asked = True

    def stop(self) -> bool:
        """False when the worker is stuck."""
        return self._worker.stop(STOP_S)

    def _begin_new_run(self, stamp_ns: int) -> None:
        stale = sum(len(arrivals) for arrivals in self._inbox.clear())
        self._health.drop("clock went back", stale)
        self._health.note("the clock went back: a new run begins")
        self._last_stamp_ns.clear()
        self._synchronizer = self._make_synchronizer()
        self._poses.forget_other_runs(stamp_ns)
        self.reset()

    def _choose_anchor(self, arrival: Arrival) -> None:
        """The configured camera triggers; while it is silent, one that is not."""
        self._received_s[arrival.camera] = arrival.received_s
        since_s = arrival.received_s - self._parameters.node.silent_after_s
        configured = self._parameters.anchor_camera
        anchor = next(camera for camera in (configured, self._anchor, arrival.camera) if self._received_s[camera] >= since_s)
        if anchor != self._anchor:
            self._health.note(f"camera {anchor} triggers now, {self._anchor} " + ("is silent" if anchor != configured else "no more"))
            self._anchor = anchor
            self._synchronizer = self._make_synchronizer()

    def _make_synchronizer(self) -> Synchronizer[Arrival]:
        self._unmatched: dict[str, deque[int]] = {camera: deque(maxlen=1000) for camera in self._camera_names}  # stamps
        return Synchronizer(dataclasses.replace(self._parameters.stream.rig, anchor_camera=self._anchor), self._camera_names)

    def _count_unmatched(self, arrivals: Arrivals) -> None:
        """Images that were not near enough to any of the anchor's, and are too old for the next."""
        matched_ns = {arrival.camera: arrival.stamp_ns for arrival in arrivals}
        for camera, stamps_ns in self._unmatched.items():
            oldest_useful_ns = matched_ns.get(camera, arrivals[0].stamp_ns)
            while stamps_ns and stamps_ns[0] <= oldest_useful_ns:
                if stamps_ns.popleft() != matched_ns.get(camera):
                    self._health.drop("no anchor image near enough")

    def _knows_poses(self, arrivals: Arrivals) -> bool:
        return all(self._poses.is_known(arrival.camera, arrival.frame_id, arrival.stamp_ns) for arrival in arrivals)

    def _on_overload(self, arrivals: Arrivals) -> None:
        self._health.drop("a newer image was ready", len(arrivals))

    def _work(self, arrivals: Arrivals) -> None:
        parameters = self._adopt_settings()
        results = self._pipeline.process(arrivals)
        if not results or self._inbox.is_closed:  # stopped meanwhile: another run may publish by now
            return
        self._publish(results, arrivals[0].received_s)
        self._recorder.add(results, parameters.node.save_interval_s)
        self._health.clear("internal")

    def _adopt_settings(self) -> Parameters:
        parameters = self._parameters
        if parameters is not self._adopted:
            self._adopted = parameters
            self._pipeline.configure(parameters)
        if self._reset_asked:
            self._reset_asked = False
            self._pipeline.reset()
            self._recorder.clear()
        return parameters

    def _on_error(self, error: Exception) -> None:
        if isinstance(error, EngineBrokenError):
            self._inbox.close()
            self._on_failure(error)
        else:
            self._health.raise_fault("internal", f"{type(error).__name__}: {error}", Level.ERROR)
