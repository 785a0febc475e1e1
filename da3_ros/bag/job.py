"""A bag in, metric depth, clouds and poses out. Reading and decoding, the network, and writing overlap in three threads."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from da3_core import Engine, Frame, FrameResult, ModelConfig, StaleStamp, Stream, StreamConfig, UnusableFrame

from ..from_msg import StampedTransform
from ..poses import in_given_world
from ..to_msg import OutputConfig, StreamCounts
from ..view import RerunRecording
from .files import SUMMARY, DatasetFolder, TrajectoryFile, new_bag, new_file, new_folder, summary_path
from .measured import MeasuredDepth
from .overlap import consumed, made_ahead
from .places import Place, refuse_places
from .plan import Plan, SourceOptions, make_plan, output_transforms
from .recording import BagError, DamagedError, Recording
from .source import Carried, FrameSource
from .summary import Summary, values_of
from .survey import survey
from .writer import BagWriter

log = logging.getLogger(__name__)
NO_METRES = "no metre is known: it takes odometry or TF and a camera that moves, or a metric model (or --scale.unknown relative)"
NO_WORLD = "no given pose could be used, so there are none in their frame: --odometry none gives poses in a world of their own"
AHEAD = 8  # sets or messages between two threads


class EngineError(BagError):
    """The network failed; what was done before it stays."""


@dataclass(frozen=True)
class BagJob:
    """What `da3 bag` is asked for."""

    input: Path
    output: Path
    source: SourceOptions = field(default_factory=SourceOptions)
    static_transforms: tuple[StampedTransform, ...] = ()
    copy: bool = False
    force: bool = False
    trajectory: Path | None = None
    rerun: Path | None = None
    dataset: Path | None = None
    depth_topic: str = ""  # for `dataset`: depth that was measured, instead of the results'
    model: ModelConfig = field(default_factory=ModelConfig)  # what the engine was made of, for the summary

    def refuse_places(self) -> None:
        """Raises BagError when an output would fall on the input or another output, or is there and not to be replaced."""
        is_file = self.output.suffix == ".mcap"
        bag = [Place(self.output), Place(summary_path(self.output))] if is_file else [Place(self.output, "bag")]
        files = [Place(path) for path in (self.trajectory, self.rerun) if path is not None]
        datasets = [Place(self.dataset, "data set")] if self.dataset is not None else []
        refuse_places(self.input, [*bag, *files, *datasets], self.force)


@dataclass(frozen=True)
class Placed:
    """Results of one synchronised set on their way to the writing thread."""

    results: Sequence[FrameResult]
    counts: StreamCounts
    log_ns: int


class ResultSink(Protocol):
    """Takes results as they come."""

    def write(self, results: Sequence[FrameResult]) -> None: ...

    def close(self) -> None: ...


def run_bag(job: BagJob, engine: Engine, config: StreamConfig, output: OutputConfig) -> Summary:
    """Processes a recording; what could be done of it is in place when this returns, and the summary says how far it came.

    Raises BagError, and leaves nothing, when the job cannot begin or no image could be processed. SIGINT and SIGTERM end it early.
    """
    job.refuse_places()
    settings = values_of(job.model) | values_of(config) | values_of(output, "output.")
    summary = Summary(str(job.input), str(job.output), settings)
    job.output.parent.mkdir(parents=True, exist_ok=True)
    with Recording(job.input, scratch=job.output.parent) as recording, ExitStack() as places:
        found = survey(recording, config.poses, output.child_suffix)
        for transform in job.static_transforms:
            found.add_static(transform)
        uses_poses = config.mode.mode != "unposed"
        plan = make_plan(found, job.source if uses_poses else replace(job.source, odometry="none"))
        summary.plan = list(plan.describe())
        for line in summary.plan:
            log.info("%s", line)
        source = FrameSource(recording, found, plan, config, job.copy)
        anchor = config.rig.anchor_camera or plan.cameras[0].name
        sinks = _make_sinks(job, places, source, anchor)
        bag = places.enter_context(new_bag(job.output))
        out = _Output(recording, BagWriter(bag, plan.world_frame, anchor, output), sinks)
        places.callback(out.abort)
        out.static_transforms = output_transforms(found, plan, output.child_suffix)
        with (
            stop_signals() as stops,
            closing(_placed(source, plan, Stream(engine, config), summary, stops)) as items,
            consumed(out.consume, AHEAD) as put,
        ):
            for item in items:
                put(item)
        summary.engine = engine.description
        _conclude(summary, plan, source, recording, out)
        out.close()
        summary.write(bag / SUMMARY)
    return summary


class _Output:
    """The writing thread's side."""

    def __init__(self, recording: Recording, writer: BagWriter, sinks: Sequence[ResultSink]) -> None:
        self.seconds = 0.0
        self.static_transforms: Sequence[StampedTransform] = ()
        self._writer = writer
        self._carry = writer.carrier(recording)
        self._sinks = sinks
        self._is_empty = True

    def consume(self, item: Carried | Placed) -> None:
        started = time.perf_counter()
        if self._is_empty and self.static_transforms:
            self._writer.write_tf_static(self.static_transforms, item.log_ns)
        self._is_empty = False
        if isinstance(item, Carried):
            self._carry(item.connection, item.log_ns, item.raw)
        else:
            self._writer.write_results(item.results, item.counts, item.log_ns)
            for sink in self._sinks:
                sink.write(item.results)
        self.seconds += time.perf_counter() - started

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()
        self._writer.close()

    def abort(self) -> None:
        """Does nothing after `close`."""
        self._writer.abort()


def _placed(
    source: FrameSource, plan: Plan, stream: Stream, summary: Summary, stops: Sequence[int]
) -> Generator[Carried | Placed, None, None]:
    """Sends frames through the stream until the source ends, breaks off, or a signal comes; the summary says which."""
    summary.images_in_recording = source.image_count
    with (
        closing(made_ahead(source, AHEAD)) as items,
        tqdm(total=source.image_count, unit="image", disable=None) as bar,
        logging_redirect_tqdm(),
    ):
        try:
            for item in items:
                if stops:
                    summary.stop("interrupted", f"stopped by {signal.Signals(stops[0]).name}", stops[0])
                    return
                if isinstance(item, Carried):
                    yield item
                    continue
                results = _register(stream, item.frames, plan, summary)
                bar.update(item.received - bar.n)
                if results:
                    dropped = item.dropped + summary.skipped.total()
                    yield Placed(results, StreamCounts(item.received, summary.processed.total(), dropped), item.log_ns)
        except DamagedError as error:
            summary.stop("damaged", str(error))
        except EngineError as error:
            summary.stop("failed", str(error))


def _register(stream: Stream, frames: Sequence[Frame], plan: Plan, summary: Summary) -> list[FrameResult]:
    if not frames:
        return []
    try:
        results = stream.register(frames)
    except UnusableFrame as error:
        summary.skip([error.camera], error)
        return _register(stream, [frame for frame in frames if frame.camera != error.camera], plan, summary)
    except StaleStamp as error:
        summary.skip([frame.camera for frame in frames], error)
        return []
    except Exception as error:
        log.debug("the engine's error", exc_info=True)
        raise EngineError(f"the network failed at {frames[0].stamp_ns * 1e-9:.3f} s: {type(error).__name__}: {error}") from error
    if plan.poses is not None:
        results = in_given_world(results)
    summary.count(results)
    for event in results[0].events:
        log.warning("%s", event)
    return results


def _conclude(summary: Summary, plan: Plan, source: FrameSource, recording: Recording, out: _Output) -> None:
    summary.add(source.tally, out.seconds)
    missing = summary.images_in_recording - summary.received.total()
    if summary.status == "complete" and (recording.damage or missing > 0):
        summary.stop("damaged", recording.damage or f"{missing} images that the recording's index counts are not in it")
    if not summary.processed:
        raise BagError(f"no image could be processed: {summary.reason()}", summary.exit_code or 1)
    if not summary.has_metres:
        log.warning("%s", NO_METRES)
    if plan.poses is not None and not summary.placed.total():
        log.warning("%s", NO_WORLD)


def _make_sinks(job: BagJob, places: ExitStack, source: FrameSource, anchor: str) -> list[ResultSink]:
    sinks: list[ResultSink] = []
    if job.trajectory is not None:
        sinks.append(TrajectoryFile(places.enter_context(new_file(job.trajectory)), anchor))
    if job.rerun is not None:
        sinks.append(RerunRecording(places.enter_context(new_file(job.rerun))))
    if job.dataset is not None:
        measured = None
        if job.depth_topic:
            again = places.enter_context(Recording(job.input, scratch=job.output.parent))  # images are read ahead, in another thread
            measured = MeasuredDepth(again, job.depth_topic, source.calibration_of(anchor))
        sinks.append(DatasetFolder(places.enter_context(new_folder(job.dataset)), anchor, measured))
    return sinks


@contextmanager
def stop_signals() -> Iterator[Sequence[int]]:
    """SIGINT and SIGTERM are put in the list this gives instead of ending the program; a second one does what it always does."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
