"""What is wrong with a recording is said in one line; what is right with it is processed."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from da3_core import Engine
from da3_ros.bag.job import BagJob, run_bag
from da3_ros.bag.plan import SourceOptions
from da3_ros.bag.recording import BagError, Recording
from da3_ros.to_msg import OutputConfig

from . import bags, messages
from .bags import FRAME_NS, HEIGHT, WIDTH, Recorded, stamp_of
from .conftest import Run, make_config
from .reading import read_mcap, stamps

FRAMES = 4
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def changed(recorded: list[Recorded], topic: str, change: Callable[[int, Recorded], Recorded | None]) -> list[Recorded]:
    """The recording with the i-th message of a topic changed, or left out."""
    count, result = 0, []
    for entry in sorted(recorded, key=lambda r: r[0]):
        if entry[1] == topic:
            entry, count = change(count, entry), count + 1  # type: ignore[assignment]
        result += [entry] if entry is not None else []
    return result


def with_message(entry: Recorded, **fields: Any) -> Recorded:
    log_ns, topic, msg = entry
    return log_ns, topic, dataclasses.replace(msg, **fields)


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def outputs(bag: Path) -> int:
    return len(read_mcap(bag)["/da3/front/depth/image"])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", ["MCAP", "SQLITE3", "ros1"])
def test_a_recording_that_is_cut_off_is_processed_as_far_as_it_reads(tmp_path: Path, out: Path, run: Run, kind: str) -> None:
    recorded = [entry for i in range(40) for entry in padded_frame(i)]
    if kind == "ros1":
        bag = cut(bags.write_ros1(tmp_path / "in.bag", recorded), 0.5)
    else:
        bag = bags.write_ros2(tmp_path / "in", recorded, kind)
        cut(next(p for p in bag.iterdir() if p.suffix in (".mcap", ".db3")), 0.5)
    summary = run(bag, out)
    assert (summary.status, summary.exit_code) == ("damaged", 3)
    assert 5 <= summary.processed["front"] <= 25
    assert outputs(out) == summary.processed["front"] == summary.images_in_recording
    assert "damaged" in summary.message


def padded_frame(i: int) -> list[Recorded]:
    """Megabytes of other data between the images, so that several chunks are written."""
    other = messages.image(np.random.default_rng(i).integers(0, 256, (100, 1500), np.uint8), "32FC1", 1, 1)
    return [*bags.camera_frame(i), (stamp_of(i), "/other", other)]


def test_a_recording_with_a_hole_says_so(tmp_path: Path, out: Path, run: Run) -> None:
    bag = bags.write_ros2(tmp_path / "in", [entry for i in range(40) for entry in padded_frame(i)])
    path = next(bag.glob("*.mcap"))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200_000] = bytes(200_000)  # zeroes where records should be
    path.write_bytes(data)
    summary = run(bag, out)
    assert (summary.status, summary.exit_code) == ("damaged", 3)
    assert 0 < outputs(out) < 40


def test_a_bag_without_its_metadata_file_is_read(tmp_path: Path, out: Path, run: Run) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.robot(FRAMES))
    (bag / "metadata.yaml").unlink()
    assert run(bag, out).status == "complete"


@pytest.mark.parametrize("content", [b"", b"not a bag at all", b"\x89MCAP0\r\n"])
def test_what_is_no_bag_is_refused(tmp_path: Path, out: Path, run: Run, content: bytes) -> None:
    (tmp_path / "in.mcap").write_bytes(content)
    with pytest.raises(BagError, match="no readable bag"):
        run(tmp_path / "in.mcap", out)
    with pytest.raises(BagError, match="does not exist"):
        run(tmp_path / "none.mcap", out)
    assert not out.exists()


def test_an_existing_output_is_refused_and_untouched_without_force(tmp_path: Path, out: Path, run: Run) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.robot(FRAMES))
    bags.write_ros2(out, bags.camera(1))
    (out / "mine").write_text("precious")
    with pytest.raises(BagError, match="--force"):
        run(bag, out)
    assert (out / "mine").read_text() == "precious"
    run(bag, out, force=True)
    assert outputs(out) == FRAMES
    assert not (out / "mine").exists()


def refuse(input: Path, output: Path, complaint: str, **job: Any) -> None:
    with pytest.raises(BagError, match=complaint):
        BagJob(input, output, force=True, **job).refuse_places()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Never read: whether it can be is asked later."""
    path = tmp_path / "recs" / "drive" / "drive_0.mcap"
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    (path.parent / "metadata.yaml").touch()
    return path


PLACES = ("output", "trajectory", "rerun", "dataset")


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("where", ["recs", "recs/drive", "recs/drive/drive_0.mcap", "recs/drive/new", "elsewhere/../recs"])
def test_no_output_is_the_input_or_holds_it_or_lies_in_it(tmp_path: Path, recording: Path, name: str, where: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    refuse(recording.parent, complaint="the input .*another place", **({"output": tmp_path / "out"} | {name: tmp_path / where}))


@pytest.mark.parametrize("name", PLACES)
def test_links_to_the_input_are_the_input(tmp_path: Path, recording: Path, name: str) -> None:
    links = {tmp_path / "drive_link": recording.parent, tmp_path / "recs_link": recording.parents[1], tmp_path / "file_link": recording}
    for link, target in links.items():
        link.symlink_to(target)
    for link in links:
        refuse(recording, complaint="another place", **({"output": tmp_path / "out"} | {name: link}))
    through = tmp_path / "recs_link" / "drive"
    refuse(through, complaint="another place", **({"output": tmp_path / "out"} | {name: recording.parents[1]}))


def test_what_a_file_of_the_input_links_to_is_the_input(tmp_path: Path, recording: Path) -> None:
    recording.rename(tmp_path / "disk.mcap")
    recording.symlink_to(tmp_path / "disk.mcap")
    refuse(recording.parent, tmp_path / "disk.mcap", "another place")


def test_an_output_beside_the_input_is_not_on_it(tmp_path: Path, recording: Path) -> None:
    BagJob(recording, recording.with_name("path"), trajectory=tmp_path / "recs" / "drive.tum").refuse_places()
    BagJob(recording.parent, tmp_path / "recs" / "drive2").refuse_places()


@pytest.mark.parametrize(
    ("places", "complaint"),
    [
        ({"trajectory": "out/path.tum"}, "out and .*out/path.tum would fall on each other"),
        ({"rerun": "out/view.rrd"}, "out and .*view.rrd"),
        ({"dataset": "out/data"}, "out and .*data"),
        ({"output": "data/out", "dataset": "data"}, "out and .*data"),
        ({"trajectory": "path", "rerun": "path"}, "path and .*path"),
        ({"trajectory": "data/path.tum", "dataset": "data"}, "path.tum and .*data"),
        ({"output": "out.mcap", "trajectory": "out.summary.json"}, "out.summary.json and"),
    ],
)
def test_outputs_do_not_fall_on_each_other(tmp_path: Path, recording: Path, places: dict[str, str], complaint: str) -> None:
    paths = {name: tmp_path / where for name, where in ({"output": "out"} | places).items()}
    refuse(recording, complaint=complaint, **paths)


def test_force_replaces_only_what_looks_like_the_output(tmp_path: Path, recording: Path) -> None:
    for kind, mark in ("bag", "metadata.yaml"), ("data", "rgb.txt"), ("other", "mine"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / mark).touch()
    bag, data, other, new, empty = (tmp_path / name for name in ("bag", "data", "other", "new", "empty"))
    empty.mkdir()
    for path in (data, other):
        refuse(recording, path, "is no bag, it has no metadata.yaml.*remove it or take another place")
    for path in (bag, other):
        refuse(recording, new, "is no data set, it has no rgb.txt", dataset=path)
    for path in (bag, empty):
        refuse(recording, new, "is a directory, where a file goes", trajectory=path)
        refuse(recording, new, "is a directory, where a file goes", rerun=path)
    BagJob(recording, bag, dataset=data, force=True).refuse_places()
    BagJob(recording, empty, force=True).refuse_places()
    BagJob(recording, new, dataset=empty, force=True).refuse_places()


def test_the_summary_of_an_output_that_is_one_file_is_an_output(tmp_path: Path, recording: Path) -> None:
    (tmp_path / "out.summary.json").write_text("of an earlier run")
    with pytest.raises(BagError, match=r"out.summary.json exists; --force replaces it"):
        BagJob(recording, tmp_path / "out.mcap").refuse_places()
    BagJob(recording, tmp_path / "out.mcap", force=True).refuse_places()


def test_refusing_comes_before_anything_is_written(tmp_path: Path, run: Run) -> None:
    bag = bags.write_ros2(tmp_path / "recs" / "drive", bags.robot(FRAMES))
    before = sorted(tmp_path.rglob("*"))
    for places in ({"output": tmp_path / "recs"}, {"trajectory": next(bag.glob("*.mcap"))}, {"dataset": tmp_path / "new" / "data"}):
        with pytest.raises(BagError, match="place"):
            run(bag, **({"output": tmp_path / "new"} | places), force=True)
    assert sorted(tmp_path.rglob("*")) == before
    assert len(read_mcap(bag)["/front/image_raw"]) == FRAMES


def test_a_camera_without_camera_info_uses_the_networks_intrinsics(
    tmp_path: Path, out: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    recorded = [r for r in bags.camera(FRAMES) if not r[1].endswith("camera_info")]
    summary = run(bags.write_ros2(tmp_path / "in", recorded), out)
    assert summary.processed == {"front": FRAMES}
    assert [line for line in warnings(caplog) if "camera_info" in line] == [
        "/front/image_raw has no camera_info on /front/camera_info: the network's own intrinsics are used"
    ]
    assert read_mcap(out)["/da3/front/depth/camera_info"][0][1].k[0] > 0


def test_an_unknown_encoding_is_refused_in_one_line(tmp_path: Path, out: Path, run: Run) -> None:
    recorded = changed(bags.robot(FRAMES), "/front/image_raw", lambda i, entry: with_message(entry, encoding="rgb9"))
    with pytest.raises(BagError, match="no image could be processed: 4 front: cannot be decoded"):
        run(bags.write_ros2(tmp_path / "in", recorded), out)
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_single_bad_images_are_skipped_with_their_reason(tmp_path: Path, out: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    recorded = changed(
        bags.robot(FRAMES), "/front/image_raw", lambda i, entry: with_message(entry, data=entry[2].data[:99]) if i in (1, 2) else entry
    )
    summary = run(bags.write_ros2(tmp_path / "in", recorded), out)
    assert summary.skipped == {"front: cannot be decoded": 2}
    assert summary.processed == {"front": FRAMES - 2}
    assert summary.exit_code == 0
    assert len([line for line in warnings(caplog) if "needs 56 rows" in line]) == 1


def test_messages_that_cannot_be_parsed_are_skipped(tmp_path: Path, out: Path, run: Run) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=messages.STORE)
        for i, (log_ns, topic, msg) in enumerate(bags.camera(FRAMES)):
            if topic == "/front/image_raw":
                raw = messages.STORE.serialize_cdr(msg, msg.__msgtype__)
                writer.write(connection, log_ns, raw[:50] if i == 3 else raw)
    assert run(tmp_path / "in", out).skipped == {"front: cannot be parsed": 1}


def test_an_image_size_that_is_not_the_camera_infos_is_skipped(tmp_path: Path, out: Path, run: Run) -> None:
    def halve(i: int, entry: Recorded) -> Recorded:
        small = messages.image(bags.picture(i, 35, 28).reshape(28, -1), "rgb8", 28, 35, ns=stamp_of(i))
        return (entry[0], entry[1], small) if i >= 2 else entry

    summary = run(bags.write_ros2(tmp_path / "in", changed(bags.robot(FRAMES), "/front/image_raw", halve)), out)
    assert summary.skipped == {"front: refused": FRAMES - 2}
    assert summary.processed == {"front": 2}


def test_a_camera_that_cannot_be_used_leaves_the_others(tmp_path: Path, out: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    def displace(_: int, entry: Recorded) -> Recorded:
        return with_message(entry, k=np.array([[60.0, 0, -90.0], [0, 60.0, 27.5], [0, 0, 1]]).reshape(9))

    rear = changed(bags.camera(FRAMES, "/rear", "rear_optical"), "/rear/camera_info", displace)
    summary = run(bags.write_ros2(tmp_path / "in", [*bags.camera(FRAMES), *rear]), out)
    assert summary.processed == {"front": FRAMES}
    assert summary.skipped == {"rear: refused": FRAMES}
    assert len([line for line in warnings(caplog) if "principal point" in line]) == 1


def test_a_size_that_changes_with_its_camera_info_begins_a_new_window(tmp_path: Path, out: Path, run: Run) -> None:
    def widen(i: int, entry: Recorded) -> Recorded:
        log_ns, topic, msg = entry
        if i < 2:
            return entry
        if topic.endswith("camera_info"):
            return log_ns, topic, messages.camera_info(bags.K, 84, HEIGHT, header=msg.header)
        return log_ns, topic, messages.image(bags.picture(i, 84).reshape(HEIGHT, -1), "rgb8", HEIGHT, 84, ns=stamp_of(i))

    recorded = changed(changed(bags.robot(FRAMES), "/front/image_raw", widen), "/front/camera_info", widen)
    summary = run(bags.write_ros2(tmp_path / "in", recorded), out)
    assert summary.processed == {"front": FRAMES}
    assert any("size or calibration changed" in event for event in summary.events)
    found = read_mcap(out)
    for (_, depth), (_, info) in zip(found["/da3/front/depth/image"], found["/da3/front/depth/camera_info"], strict=True):
        assert (depth.width, depth.height) == (info.width, info.height)
    assert {msg.width for _, msg in found["/da3/front/depth/image"]} == {WIDTH, 70}


def test_stamps_that_go_back_a_little_are_skipped(tmp_path: Path, out: Path, run: Run) -> None:
    back = changed(
        bags.robot(FRAMES),
        "/front/image_raw",
        lambda i, entry: with_message(entry, header=messages.header(stamp_of(0) + 1)) if i == 2 else entry,
    )
    summary = run(bags.write_ros2(tmp_path / "in", back), out)
    assert summary.skipped == {"front: stamp went back": 1}
    assert stamps(read_mcap(out)["/da3/front/depth/image"]) == [stamp_of(0), stamp_of(1), stamp_of(3)]


def test_a_clock_that_was_set_back_begins_a_new_run(tmp_path: Path, out: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The same drive twice, recorded one after the other, under the same stamps."""
    robot = bags.robot(15)
    again = [(log_ns + 20 * FRAME_NS, topic, msg) for log_ns, topic, msg in robot if topic != "/tf_static"]
    summary = run(bags.write_ros2(tmp_path / "in", [*robot, *again]), out)
    assert summary.processed == {"front": 30}
    assert any("new run" in event for event in summary.events)
    assert not summary.unposed


def test_poses_that_are_not_finite_are_ignored_and_told_once(tmp_path: Path, out: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    def spoil(i: int, entry: Recorded) -> Recorded:
        return (entry[0], entry[1], messages.odometry("odom", "base_link", (np.nan, 0, 0), ns=stamp_of(0))) if i in (3, 4) else entry

    summary = run(bags.write_ros2(tmp_path / "in", changed(bags.robot(FRAMES), "/odom", spoil)), out)
    assert summary.ignored == {"/odom": 2}
    assert len([line for line in warnings(caplog) if "not a rigid transform" in line]) == 1


def test_several_pictures_of_one_camera_are_ambiguous(tmp_path: Path, out: Path, run: Run) -> None:
    other = [(log_ns, "/front/image_rect", msg) for log_ns, topic, msg in bags.camera(FRAMES) if topic == "/front/image_raw"]
    bag = bags.write_ros2(tmp_path / "in", [*bags.robot(FRAMES), *other])
    with pytest.raises(BagError, match="--camera /front/image_raw or --camera /front/image_rect"):
        run(bag, out)
    assert run(bag, out, source=SourceOptions(cameras=("/front/image_rect",))).processed == {"front": FRAMES}


def test_several_odometries_are_ambiguous(tmp_path: Path, out: Path, run: Run) -> None:
    bag = bags.write_ros2(tmp_path / "in", [*bags.robot(FRAMES), *bags.odometry(FRAMES, "/wheel_odom")])
    with pytest.raises(BagError, match="--odometry /odom or --odometry /wheel_odom"):
        run(bag, out)
    assert run(bag, out, source=SourceOptions(odometry="/wheel_odom")).exit_code == 0


def test_depth_topics_are_no_cameras(tmp_path: Path, out: Path, run: Run) -> None:
    depth = messages.image(np.zeros((4, 16), np.uint8), "32FC1", 4, 4, ns=stamp_of(0))
    bag = bags.write_ros2(tmp_path / "in", [*bags.robot(FRAMES), (stamp_of(0), "/front/depth", depth)])
    assert run(bag, out).processed == {"front": FRAMES}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"cameras": ("/rear/image_raw",)}, "/rear/image_raw is no picture topic; there are /front/image_raw"),
        ({"cameras": ("/front/image_raw,/info",)}, "/info is no camera_info topic; there are /front/camera_info"),
        ({"odometry": "/nowhere"}, "/nowhere is no odometry topic"),
        ({"odometry": "/odom", "world_frame": "map"}, "/odom is in odom"),
        ({"odometry": "tf", "world_frame": "map"}, "front_optical to move in odom"),
    ],
)
def test_options_that_do_not_fit_name_what_there_is(tmp_path: Path, out: Path, run: Run, options: Any, complaint: str) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.robot(FRAMES))
    with pytest.raises(BagError, match=complaint):
        run(bag, out, source=SourceOptions(**options))


def test_a_missing_link_names_the_frames(tmp_path: Path, out: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    from da3_ros.from_msg import StampedTransform

    bag = bags.write_ros2(tmp_path / "in", [*bags.camera(FRAMES), *bags.odometry(FRAMES)])
    with pytest.raises(BagError, match=r"front_optical and base_link.*--static-transform"):
        run(bag, out, source=SourceOptions(odometry="/odom"))
    assert not run(bag, out).modes["posed"]
    assert any("does not link front_optical and base_link" in line for line in warnings(caplog))
    link = StampedTransform(0, "base_link", "front_optical", bags.T_BASE_CAM)
    linked = run(bag, out, force=True, static_transforms=(link,), settings={"mode.mode": "posed"})
    assert linked.modes == {"posed": FRAMES}


def test_two_parents_in_tf_are_refused(tmp_path: Path, out: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    second = (stamp_of(0), "/tf", messages.tf(messages.transform("map", "base_link", (0, 0, 0), ns=stamp_of(0))))
    bag = bags.write_ros2(tmp_path / "in", [*bags.camera(FRAMES), *bags.static_tf(), *bags.moving_tf(FRAMES), second])
    with pytest.raises(BagError, match="base_link has two parents in TF, odom and map"):
        run(bag, out, source=SourceOptions(odometry="tf"))


class FailingEngine:
    """The engine, until it fails."""

    kind = "any_view"
    description = "fails"

    def __init__(self, engine: Engine, calls: int) -> None:
        self._engine, self._calls = engine, calls
        self.device = engine.device

    def infer(self, *arguments: Any, **named: Any) -> Any:
        self._calls -= 1
        if self._calls < 0:
            raise RuntimeError("out of memory")
        return self._engine.infer(*arguments, **named)

    def reset(self) -> None:
        self._engine.reset()


def test_an_engine_that_fails_leaves_what_was_done(tmp_path: Path, out: Path, engine: Engine) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.camera(FRAMES))
    summary = run_bag(BagJob(bag, out), FailingEngine(engine, 2), make_config(), OutputConfig())
    assert (summary.status, summary.exit_code) == ("failed", 1)
    assert "RuntimeError: out of memory" in summary.message
    assert outputs(out) == summary.processed["front"] == 2


def test_a_full_disk_leaves_nothing(tmp_path: Path, out: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from rosbags.rosbag2.storage_mcap import McapWriter

    bag = bags.write_ros2(tmp_path / "in", bags.robot(FRAMES))

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(McapWriter, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        run(bag, out)
    assert list(tmp_path.iterdir()) == [bag]


class SignallingEngine(FailingEngine):
    """The engine, until it sends its own process a signal."""

    def __init__(self, engine: Engine, calls: int, number: signal.Signals) -> None:
        super().__init__(engine, calls)
        self._number = number

    def infer(self, *arguments: Any, **named: Any) -> Any:
        self._calls -= 1
        if self._calls == 0:
            os.kill(os.getpid(), self._number)
        return self._engine.infer(*arguments, **named)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_a_valid_bag_of_what_was_done(tmp_path: Path, out: Path, engine: Engine, number: signal.Signals) -> None:
    bag = bags.write_ros2(tmp_path / "in", bags.camera(50))
    before = signal.getsignal(number)
    summary = run_bag(BagJob(bag, out), SignallingEngine(engine, 3, number), make_config(), OutputConfig())
    assert (summary.status, summary.exit_code) == ("interrupted", 128 + number)
    assert 3 <= outputs(out) == summary.processed["front"] < 50
    assert summary.skipped["front: not reached"] == summary.received["front"] - summary.processed["front"]
    assert signal.getsignal(number) == before
    with Recording(out) as recording:
        assert recording.damage is None


def test_ctrl_c_ends_the_process_with_a_valid_bag(tmp_path: Path, out: Path) -> None:
    """A process of its own, stopped from outside while it works."""
    bag = bags.write_ros2(tmp_path / "in", bags.camera(200))
    command = [sys.executable, str(Path(__file__).with_name("run_slowly.py")), str(bag), str(out)]
    job = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    for _ in range(3):
        assert job.stdout.readline() == "infer\n"
    job.send_signal(signal.SIGINT)
    assert job.wait(20) == 130
    assert 1 <= outputs(out) < 200
    assert '"status": "interrupted"' in (out / "summary.json").read_text()


def test_stopping_reads_no_further(tmp_path: Path) -> None:
    """The reading thread ends with its consumer, however much is left."""
    from contextlib import closing

    from da3_ros.bag.overlap import made_ahead

    made = []

    def numbers() -> Any:
        for i in range(10**9):
            made.append(i)
            yield i

    with closing(made_ahead(numbers(), 4)) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        time.sleep(0.1)
    count = len(made)
    time.sleep(0.1)
    assert len(made) == count <= 9


def test_errors_come_back_from_either_thread() -> None:
    from da3_ros.bag.overlap import consumed, made_ahead

    def broken() -> Any:
        yield 1
        raise KeyError("reader")

    found = []
    with pytest.raises(KeyError, match="reader"):
        found += list(made_ahead(broken(), 4))
    taken = []

    def consume(item: int) -> None:
        taken.append(item)
        if item == 2:
            raise KeyError("writer")

    with pytest.raises(KeyError, match="writer"), consumed(consume, 2) as put:
        for i in range(100):
            put(i)
    assert taken == [0, 1, 2]
