"""The live node: parameters, subscriptions, publishers, lifecycle. Callbacks convert, call, publish."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
import torch
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

from da3_core import Engine, FrameResult, StaleStamp, Stream, load_model, make_engine, plan_resize, wake_up

from .cameras import OVERRIDABLE, CameraInput
from .diagnostics import Health, Level
from .from_msg import MessageError
from .libraries import make_broadcaster, make_image_decoder, make_transforms
from .live import LiveRun, refuse_unfit
from .parameters import declare, from_ros, refuse_contradictions
from .poses import NoPoses, OdometryPoses, Poses, TfPoses, rigid_from_text
from .publishers import DiagnosticsPublisher, Publishers
from .recorder import Recorder
from .settings import Parameters
from .to_msg import RclpyTypes, StreamCounts

SUCCESS, ERROR = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.ERROR


def load_engine(parameters: Parameters) -> Engine:
    """The network and what runs it; built for full windows of the images' size where that is set, else by the first image."""
    node, config = parameters.node, parameters.model
    cameras = len(node.cameras)
    views = max(parameters.stream.window.views, cameras)  # the newest are always in
    wake_up(config.device)
    engine = make_engine(config.engine, load_model(config.model), config.device, views, config.precision, at_once=not node.build_only)
    if node.image_width_px and node.image_height_px:
        preprocess = parameters.stream.preprocess
        width_px, height_px = plan_resize(node.image_width_px, node.image_height_px, preprocess.size, preprocess.resize).network
        engine.prepare((height_px, width_px), Stream.views_wanted(engine.kind, parameters.stream, cameras), cameras)
    return engine


@dataclass
class Session:
    """What lives from configure to cleanup; `entities` are closed then."""

    engine: Engine
    cameras: dict[str, CameraInput]
    poses: Poses
    publishers: Publishers
    recorder: Recorder
    entities: ExitStack


class DepthNode(LifecycleNode):  # type: ignore[misc]
    """`load` makes the engine from its settings; it is called in configure, never later."""

    def __init__(self, load: Callable[[Parameters], Engine] = load_engine, **options: Any) -> None:
        super().__init__("da3", **options)
        self._load = load
        self._settings = declare(self)
        cameras = self._settings.cameras
        self._T_base_cam = {name: rigid_from_text(camera.extrinsics) for name, camera in cameras.items() if camera.extrinsics}
        self._health = Health(self._settings.node.cameras, self._log)
        self._session: Session | None = None
        self._run: LiveRun | None = None
        self._failure: str | None = None
        self._last_result: FrameResult | None = None
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._diagnostics = DiagnosticsPublisher(self)
        self._broadcaster = make_broadcaster(self)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a simulation that pauses does not silence us
        self.create_timer(1.0, self._publish_diagnostics, clock=steady)
        self._restart = self.create_timer(self._settings.node.restart_interval_s, self.start, clock=steady)
        self._restart.cancel()
        change_state = next(service for service in self.services if service.srv_type is ChangeState)
        change_state.callback = partial(self._on_change_state, change_state.callback)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/save", self._on_save)

    # lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._guarded("configure", lambda: self._configure(state))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._guarded("activate", lambda: self._activate(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._failure is not None:
            return ERROR
        return self._guarded("deactivate", lambda: self._deactivate(state))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._guarded("clean up", self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._guarded("shut down", self._release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lets go of everything; autostart tries again after a while, a manager may at any time."""
        self._failure = None
        try:
            self._release()
        except Exception as error:
            self.get_logger().fatal(f"cannot recover: {type(error).__name__}: {error}")
            return ERROR
        if self._settings.node.autostart:
            self._restart.reset()
        return SUCCESS

    def _on_change_state(self, change: Callable[..., Any], request: ChangeState.Request, response: ChangeState.Response) -> Any:
        """rclpy raises for a transition that the present state does not have, and gives no answer."""
        try:
            return change(request, response)
        except RuntimeError as error:
            self.get_logger().warning(f"transition refused: {error}")
            response.success = False
            return response

    def _guarded(self, what: str, transition: Callable[[], None]) -> TransitionCallbackReturn:
        """rclpy swallows exceptions of transitions: here they are told, and lead to on_error."""
        try:
            transition()
        except Exception as error:
            self._health.raise_fault("lifecycle", f"cannot {what}: {type(error).__name__}: {error}", Level.ERROR)
            return ERROR
        self._health.clear("lifecycle")
        return SUCCESS

    def _configure(self, state: LifecycleState) -> None:
        node = self._settings.node
        engine = self._load(self._settings)
        refuse_unfit(engine, self._settings)
        with ExitStack() as entities:
            cameras = {name: self._make_camera(name, entities) for name in node.cameras}
            poses = self._make_poses(entities)
            publishers = Publishers(self, node.cameras, RclpyTypes(), self._broadcaster)
            entities.callback(publishers.close)
            recorder = Recorder(node.save_voxel_m, node.save_max_points)
            self._session = Session(engine, cameras, poses, publishers, recorder, entities.pop_all())
        super().on_configure(state)

    def _activate(self, state: LifecycleState) -> None:
        session = self._session
        if session is None:
            raise RuntimeError("configure comes first")
        self._health.begin_run()
        self._last_result = None
        self._run = LiveRun(
            session.engine,
            self._settings,
            session.cameras,
            session.poses,
            make_image_decoder(),
            self._health,
            session.recorder,
            self._publish,
            self._on_engine_failure,
        )
        for camera in session.cameras.values():
            camera.start()
        super().on_activate(state)
        self.get_logger().info(f"active; {session.engine.description}")

    def _deactivate(self, state: LifecycleState) -> None:
        super().on_deactivate(state)
        self._stop_run()

    def _stop_run(self) -> None:
        run, self._run = self._run, None
        if run is None or self._session is None:
            return
        for camera in self._session.cameras.values():
            camera.stop()
        if not run.stop():
            raise RuntimeError("the engine does not come back from an image")
        self._session.engine.reset()

    def _release(self) -> None:
        self._stop_run()
        session, self._session = self._session, None
        if session is None:
            return
        session.entities.close()
        del session
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def start(self) -> None:
        """What a lifecycle manager would do, where autostart is set."""
        self._restart.cancel()  # on_error sets it
        if self._settings.node.autostart and self._session is None and self.trigger_configure() == SUCCESS:
            self._go_on()

    def _go_on(self) -> None:
        if self._settings.node.build_only and self._session is not None:
            self.get_logger().info(f"the engine is built: {self._session.engine.description}")
            rclpy.try_shutdown(context=self.context)
            return
        self.trigger_activate()

    def destroy_node(self) -> None:
        self._release()
        super().destroy_node()

    # inputs

    def _make_camera(self, name: str, entities: ExitStack) -> CameraInput:
        camera = CameraInput(self, name, self._settings.cameras[name], self._settings.node, self._on_image)
        entities.callback(camera.close)
        return camera

    def _make_poses(self, entities: ExitStack) -> Poses:
        node, config = self._settings.node, self._settings.stream.poses
        if node.pose_source == "none":
            return NoPoses()
        transforms = make_transforms(self, config, self._on_transforms)
        entities.callback(transforms.close)
        if node.pose_source == "tf":
            return TfPoses(transforms, self._settings.world_frame)
        poses = OdometryPoses(transforms, self._settings.world_frame, self._T_base_cam, config)
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)  # which takes from every publisher
        subscription = self.create_subscription(
            Odometry, node.odometry_topic, lambda msg: self._on_odometry(poses, msg), qos, qos_overriding_options=OVERRIDABLE
        )
        entities.callback(self.destroy_subscription, subscription)
        return poses

    def _on_transforms(self, refused: str) -> None:
        if refused:
            self._health.raise_fault("tf", refused, Level.ERROR)
        else:
            self._health.clear("tf")

    def _on_odometry(self, poses: OdometryPoses, msg: Odometry) -> None:
        try:
            with suppress(StaleStamp):  # sent twice, or overtaken
                poses.add(msg)
        except MessageError as error:
            self._health.raise_fault("odometry", str(error), Level.ERROR)
        else:
            self._health.clear("odometry")

    def _on_image(self, arrival: Any) -> None:
        if self._run is not None:
            self._run.put(arrival)

    def _on_set_parameters(self, changes: Sequence[Any]) -> SetParametersResult:
        known = self._settings.flat()
        try:
            changed = self._settings
            for change in changes:
                if change.name in known:  # the others are rclpy's own
                    changed = changed.with_setting(change.name, from_ros(change.value))
            refuse_contradictions(changed)
            if self._session is not None:
                refuse_unfit(self._session.engine, changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._settings = changed
        if self._run is not None:
            self._run.configure(changed)
        return SetParametersResult(successful=True)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._run is not None
        response.message = "the next image begins a new run" if self._run is not None else "the node is not active"
        if self._run is not None:
            self._run.reset()
        return response

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._session is None:
            response.message = "nothing is recorded before the node is configured"
            return response
        try:
            response.message = self._session.recorder.save(Path(self._settings.node.save_directory).expanduser())
            response.success = True
        except OSError as error:
            response.message = f"cannot write: {error}"
        return response

    # outputs, called by the worker

    def _publish(self, results: Sequence[FrameResult], received_s: float) -> None:
        session, health = self._session, self._health
        if session is None:
            return
        counts = StreamCounts(health.frames_in, health.frames_out, health.frames_dropped)
        session.publishers.publish(results, self._settings, counts, received_s)
        latency_s = time.monotonic() - received_s
        for result in results:
            health.published(result.camera, latency_s)
        for event in results[0].events:
            health.note(event)
        self._last_result = results[0]

    def _on_engine_failure(self, error: Exception) -> None:
        self._failure = str(error)
        self.executor.create_task(self._give_up_run)  # transitions belong to the executor's thread

    def _give_up_run(self) -> None:
        if self._run is not None:
            self.trigger_deactivate()  # and on to on_error

    # health

    def outlive(self, error: Exception) -> None:
        """What a callback raised that nobody had thought of: it shows in the next diagnostics."""
        self._health.raise_fault("callback", f"{type(error).__name__}: {error}", Level.ERROR)

    def _log(self, level: Level, text: str) -> None:
        logger = self.get_logger()
        if level == Level.OK:  # rclpy wants one severity per line of code
            logger.info(text)
        elif level == Level.WARN:
            logger.warning(text)
        else:
            logger.error(text)

    def _publish_diagnostics(self) -> None:
        if self._session is not None and (refusals := self._session.engine.refusals):
            self._health.raise_fault("slow engine", "; ".join(refusals))
        else:
            self._health.clear("slow engine")
        reports = [self._health.node_report(self._state_values())]
        if self._run is not None:
            self._health.check_silence(self._settings.node.silent_after_s)
            reports += [self._health.camera_report(camera) for camera in self._settings.node.cameras]
        self._diagnostics.publish(reports)
        self._health.clear("callback")  # told; should it go on, it is told again

    def _state_values(self) -> dict[str, str]:
        state = "active" if self._run is not None else "inactive" if self._session is not None else "unconfigured"
        values = {"state": state, "model": self._settings.model.model}
        if self._session is not None:
            values["engine"] = self._session.engine.description
        if torch.cuda.is_available():
            values["GPU memory [MB]"] = f"{torch.cuda.memory_allocated() / 1e6:.0f}"
        result = self._last_result
        if self._run is not None and result is not None:
            values |= {
                "mode": result.mode,
                "mode reason": result.mode_reason,
                "scale": f"{result.scale.value:.4f}",
                "scale log variance": f"{result.scale.log_variance:.5f}",
                "scale source": result.scale.source,
                "window views": str(result.window_views),
            }
        return values
