"""What a stream does with frames that are not as the last ones were, with settings, and with a real network."""

from __future__ import annotations

import dataclasses
import gc

import numpy as np
import pytest
import torch

from da3_core.config import FilterConfig, ModeConfig, PreprocessConfig, ScaleConfig, StreamConfig, WindowConfig, replace_setting
from da3_core.engines import make_engine
from da3_core.model import PRESETS, build_model
from da3_core.model.presets import NestedConfig
from da3_core.streaming import StaleStamp, Stream, UnusableFrame
from da3_core.types import Calibration, Engine, Frame, FrameResult

SECOND_NS = 1_000_000_000
FISHEYE = Calibration(96, 64, np.array([[40.0, 0, 46.0], [0, 40.5, 33.0], [0, 0, 1]]), "equidistant", (0.02, -0.01, 0.003, 0.0))


def test_a_frame_that_comes_too_late_is_refused_and_nothing_has_happened(room) -> None:
    engine = room.Engine()
    stream, other = Stream(engine, room.config), Stream(engine, room.config)
    path = [room.pose(z=0.1 * k) for k in range(6)]
    frames = [room.frame(engine, k, T, T) for k, T in enumerate(path)]
    for frame in frames[:5]:
        stream.register([frame])
        other.register([frame])
    for late in (frames[4], frames[2]):
        with pytest.raises(StaleStamp, match="front: stamp"):
            stream.register([late])
    np.testing.assert_array_equal(stream.register([frames[5]])[0].depth_m, other.register([frames[5]])[0].depth_m)


def test_a_clock_that_is_set_back_begins_a_new_run(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.config)
    for k in range(20, 26):
        T = room.pose(z=0.1 * k)
        result = stream.register([room.frame(engine, k, T, T)])[0]
    assert result.scale.is_metric
    again = stream.register([room.frame(engine, 0, room.pose(), room.pose())])[0]
    assert again.events == ("camera front: the clock went back, a new run begins",)
    assert again.window_views == 1
    assert again.scale.source == "none"
    assert stream.register([room.frame(engine, 1, room.pose(), room.pose())])[0].events == ()


def test_a_new_run_trusts_poses_anew_and_lets_the_engine_forget(room) -> None:
    class Forgetful(room.Engine):
        resets = 0

        def reset(self) -> None:
            self.resets += 1

    engine = Forgetful()
    stream = Stream(engine, room.configured(mode=ModeConfig(gate_interval=1)))
    for k in range(20, 30):
        wrong = room.pose(z=0.1 * k, yaw_deg=40 * k)
        last = stream.register([room.frame(engine, k, room.pose(z=0.1 * k), wrong)])[0]
    assert (last.mode, engine.resets) == ("unposed", 1)
    again = stream.register([room.frame(engine, 0, room.pose(), room.pose())])[0]
    assert (again.mode, again.mode_reason, engine.resets) == ("posed", "given poses, not checked yet", 2)


def test_a_new_calibration_or_size_begins_a_new_window_and_is_told(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.config)
    for k in range(6):
        T = room.pose(z=0.1 * k)
        before = stream.register([room.frame(engine, k, T, T)])[0]
    assert before.window_views == 4
    T = room.pose(z=0.6)
    recalibrated = dataclasses.replace(room.calibration, K=room.calibration.K * np.array([[1.1, 1, 1], [1, 1.1, 1], [1, 1, 1]]))
    after = stream.register([dataclasses.replace(room.frame(engine, 6, T, T), calibration=recalibrated)])[0]
    assert after.events == ("camera front: image size or calibration changed, a new window begins",)
    assert after.window_views == 1
    assert after.scale.source == "held"  # the metres go on
    assert after.K[0, 0] == pytest.approx(66)
    larger = dataclasses.replace(room.frame(engine, 7, T, T), image=np.zeros((112, 168, 3), np.uint8), calibration=None)
    assert "changed" in stream.register([larger])[0].events[0]


def test_a_new_distortion_alone_is_a_new_calibration(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.config)
    bent = dataclasses.replace(room.calibration, distortion_model="plumb_bob", D=(-0.1, 0.0, 0.0, 0.0, 0.0))
    more = dataclasses.replace(bent, D=(-0.2, 0.0, 0.0, 0.0, 0.0))
    calibrations = (bent, bent, more, dataclasses.replace(more, distortion_model="rational_polynomial"))
    frames = [dataclasses.replace(room.frame(engine, k, room.pose()), calibration=c) for k, c in enumerate(calibrations)]
    assert [len(stream.register([frame])[0].events) for frame in frames] == [0, 0, 1, 1]


def test_cameras_of_a_rig_that_differ_in_size_come_out_at_that_of_the_first(room) -> None:
    engine = room.Engine()
    rear_calibration = Calibration(128, 128, np.array([[100.0, 0, 63.5], [0, 100.0, 63.5], [0, 0, 1]]))
    rear = room.frame(engine, 0, room.pose(), camera="rear")
    rear = dataclasses.replace(rear, image=np.zeros((128, 128, 3), np.uint8), calibration=rear_calibration)
    results = Stream(engine, room.config).register([room.frame(engine, 0, room.pose()), rear])
    assert [result.image.shape for result in results] == [(56, 84, 3)] * 2
    assert [result.depth_m.shape for result in results] == [(56, 84)] * 2
    assert results[1].K[0, 0] == pytest.approx(100 * 84 / 128)  # its width fills the image, its height is cropped


def test_an_unposed_trajectory_goes_on_from_where_it_was_after_a_new_calibration(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.configured(scale=ScaleConfig(unknown="relative")))
    for k in range(20):
        last = stream.register([room.frame(engine, k, room.pose(z=0.1 * k, yaw_deg=3 * k))])[0]
    frame = dataclasses.replace(room.frame(engine, 20, room.pose(z=1.9, yaw_deg=57)), calibration=None)
    after = stream.register([frame])[0]
    assert after.window_views == 1
    np.testing.assert_allclose(after.T_world_cam, last.T_world_cam, atol=1e-6)


def test_a_calibration_that_does_not_fit_names_its_camera(room) -> None:
    engine = room.Engine()
    frame = dataclasses.replace(room.frame(engine, 0, room.pose()), image=np.zeros((112, 168, 3), np.uint8))
    with pytest.raises(ValueError, match="camera front: the image is 168x112 but its calibration is for 84x56"):
        Stream(engine, room.config).register([frame])


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [(lambda image: image / np.float32(255), "of float32 came"), (lambda image: image[..., 0], "of shape .56, 84. came")],
)
def test_an_image_that_cannot_be_used_names_its_camera_and_changes_nothing(room, spoilt, reason: str) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.config)
    stream.register([room.frame(engine, 0, room.pose())])
    frame = room.frame(engine, 1, room.pose())
    with pytest.raises(UnusableFrame, match=f"camera front: an image {reason}"):
        stream.register([dataclasses.replace(frame, image=spoilt(frame.image))])
    assert stream.register([frame])[0].window_views == 2


def test_a_pose_that_is_none_is_not_used_and_is_told(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.config)
    for broken in (np.full((4, 4), np.nan), 2 * np.eye(4)):
        result = stream.register([room.frame(engine, len(engine.truth), room.pose(), broken)])[0]
        assert result.events == ("camera front: its pose is no rigid transform, and is not used",)
        assert result.mode == "unposed"


def test_settings_change_while_it_runs_and_what_they_do_not_touch_goes_on(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.config)
    path = [room.pose(z=0.1 * k) for k in range(9)]
    for k in range(6):
        stream.register([room.frame(engine, k, path[k], path[k])])
    stream.configure(replace_setting(room.config, "filter.max_depth_m", 4.0))
    near = stream.register([room.frame(engine, 6, path[6], path[6])])[0]
    assert 3.0 < np.nanmax(near.depth_m) <= 4.0 < room.depth(path[6]).max()
    assert near.window_views == 4
    with pytest.raises(ValueError, match="needs a metric"):
        stream.configure(replace_setting(room.config, "mode.mode", "metric"))
    stream.configure(replace_setting(room.config, "window.views", 2))
    fewer = stream.register([room.frame(engine, 7, path[7], path[7])])[0]
    assert (fewer.window_views, fewer.scale.source) == (1, "held")
    stream.reset()
    assert stream.register([room.frame(engine, 8, path[8], path[8])])[0].scale.source == "none"


def test_view_ids_are_never_used_twice(room) -> None:
    engine, seen = room.Engine(), []
    infer = engine.infer
    engine.infer = lambda views, wanted, posed: (seen.extend(view.id for view in views[-1:]), infer(views, wanted, posed))[1]
    stream = Stream(engine, room.configured(mode=ModeConfig(mode="unposed")))
    for k in (20, 21, 0, 1):
        stream.register([room.frame(engine, k, room.pose())])
    stream.configure(room.configured(mode=ModeConfig(mode="unposed"), preprocess=PreprocessConfig(size=84, output_size="input")))
    stream.register([room.frame(engine, 2, room.pose())])
    assert len(seen) == len(set(seen)) == 5


def test_memory_does_not_grow(room) -> None:
    """After a hundred frames, two hundred more leave as many objects and tensors as there were."""
    engine = room.Engine()
    stream = Stream(engine, room.config)

    def register(first: int, last: int) -> int:
        for k in range(first, last):
            T = room.pose(x=np.sin(k / 10), z=np.cos(k / 10), yaw_deg=3 * k)
            stream.register([room.frame(engine, k, T, T if k % 50 < 40 else None)])
            engine.truth.clear() if k % 10 == 9 else None
            engine.truth |= {(v.camera, v.stamp_ns): room.pose() for v in stream._window._keyframes + stream._window._newest}
            engine.calls.clear()
        gc.collect()
        return len(gc.get_objects())

    before, after = register(0, 100), register(100, 300)
    assert after - before < 100  # one object a frame would be twice as many


@pytest.fixture(scope="module")
def nano() -> Engine:
    torch.manual_seed(0)
    return make_engine("eager", build_model(PRESETS["da3-nano"]), device="cpu")


def frames_of(calibration: Calibration | None, n: int, cameras: str = "a") -> list[list[Frame]]:
    """n sets of noise images, along a line."""
    rng = np.random.default_rng(0)
    h, w = (calibration.height_px, calibration.width_px) if calibration else (64, 96)
    sets = []
    for k in range(n):
        T = np.eye(4)
        T[0, 3] = 0.1 * k
        images = [rng.integers(0, 255, (h, w, 3), np.uint8) for _ in cameras]
        sets.append([Frame(c, f"{c}_optical", 7 + k * SECOND_NS, image, calibration, T) for c, image in zip(cameras, images, strict=True)])
    return sets


def registered(engine: Engine, sets: list[list[Frame]], config: StreamConfig) -> list[FrameResult]:
    stream = Stream(engine, config)
    return [result for frames in sets for result in stream.register(frames)]


@pytest.mark.parametrize("output_size", ["network", "input"])
def test_a_real_networks_results_have_the_inputs_stamp_and_frame_and_one_size_and_K(nano: Engine, output_size: str) -> None:
    preprocess = PreprocessConfig(size=70, coverage="all", output_size=output_size)
    window = WindowConfig(views=4, keyframe_translation_m=0.05)
    config = StreamConfig(preprocess, window, mode=ModeConfig(mode="posed"), filter=FilterConfig(edge_ratio=0.0))
    results = registered(nano, frames_of(FISHEYE, 3, "ab"), config)
    shape = (42, 70) if output_size == "network" else (64, 96)
    assert [r.window_views for r in results[::2]] == [2, 4, 4]
    assert [(r.camera, r.frame_id, r.stamp_ns) for r in results[-2:]] == [
        ("a", "a_optical", 7 + 2 * SECOND_NS),
        ("b", "b_optical", 7 + 2 * SECOND_NS),
    ]
    for result in results:
        assert result.depth_m.shape == result.confidence.shape == result.image.shape[:2] == shape
        assert (result.depth_m.dtype, result.confidence.dtype, result.image.dtype) == (np.float32, np.float32, np.uint8)
        # ROS counts from the first pixel's centre: the principal point of a centred camera is half a pixel before the middle
        np.testing.assert_allclose(result.K[:2, 2], [(shape[1] - 1) / 2, (shape[0] - 1) / 2])
        assert set(result.timings_s) == {"preprocess", "window", "engine", "anchor"}
    # the corners, which the lens never saw, and nothing else
    for result in results[2:]:
        nothing = np.isnan(result.depth_m)
        assert result.scale.is_metric
        assert 0 < nothing.mean() < 0.6
        assert (result.image[nothing] == 0).all()
        assert result.image[~nothing].any(-1).mean() > 0.99


@pytest.mark.parametrize("network", ["metric", "mono", "nested"])
def test_every_kind_of_network_goes_through(network: str) -> None:
    any_view, metric = PRESETS["da3-nano"], PRESETS["da3metric-nano"]
    mono = dataclasses.replace(metric, metric=False)
    torch.manual_seed(0)
    model = build_model({"metric": metric, "mono": mono, "nested": NestedConfig(any_view, metric)}[network])
    config = StreamConfig(PreprocessConfig(size=70), scale=ScaleConfig(unknown="relative"), filter=FilterConfig(1.0, 0.0, False, 0.0))
    results = registered(make_engine("eager", model, device="cpu"), frames_of(FISHEYE, 3), config)
    for result in results:
        assert result.depth_m.shape == (42, 70)
        assert np.isfinite(result.depth_m).all()
        assert result.scale.is_metric == (network != "mono")
        assert (result.confidence is None) == (network != "nested")
        assert result.T_world_cam is not None


def test_the_same_frames_give_the_same_bytes(nano: Engine) -> None:
    config = StreamConfig(PreprocessConfig(size=70), WindowConfig(views=3, keyframe_interval_s=0.5), scale=ScaleConfig(unknown="relative"))
    for given in (True, False):
        sets = [[dataclasses.replace(f, T_world_cam=f.T_world_cam if given else None) for f in s] for s in frames_of(FISHEYE, 4)]
        first, second = (registered(nano, sets, config) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert a.depth_m.tobytes() == b.depth_m.tobytes()
            assert a.T_world_cam.tobytes() == b.T_world_cam.tobytes()
            assert (a.scale, a.mode_reason) == (b.scale, b.mode_reason)


@pytest.mark.parametrize("together", [False, True])
def test_streams_on_one_engine_do_not_see_each_others_images(nano: Engine, together: bool) -> None:
    config = StreamConfig(PreprocessConfig(size=70), WindowConfig(views=3, keyframe_interval_s=0.5), scale=ScaleConfig(unknown="relative"))
    ours = [[dataclasses.replace(frame, T_world_cam=None) for frame in frames] for frames in frames_of(None, 4)]
    theirs = [[dataclasses.replace(frame, image=255 - frame.image) for frame in frames] for frames in ours]
    nano.reset()
    alone = registered(nano, theirs, config)
    nano.reset()
    first = Stream(nano, config)
    if together:
        second = Stream(nano, config)
        found = [result for a, b in zip(ours, theirs, strict=True) for result in (first.register(a), second.register(b))[1]]
    else:
        for frames in ours:
            first.register(frames)
        found = registered(nano, theirs, config)
    for a, b in zip(found, alone, strict=True):
        np.testing.assert_allclose(a.depth_m, b.depth_m, rtol=1e-5)


def test_without_calibration_K_is_the_networks_and_with_one_it_is_that_even_without_poses(nano: Engine) -> None:
    config = StreamConfig(PreprocessConfig(size=70), WindowConfig(views=2), mode=ModeConfig(mode="unposed"))
    known = Calibration(96, 64, np.array([[80.0, 0, 47.5], [0, 80.0, 31.5], [0, 0, 1]]))
    with_calibration = registered(nano, frames_of(known, 2), config)[-1]
    np.testing.assert_allclose(with_calibration.K, [[80 * 70 / 96, 0, 34.5], [0, 80 * 42 / 64, 20.5], [0, 0, 1]])
    without = registered(nano, frames_of(None, 2), config)[-1]
    assert np.isfinite(without.K).all()
    assert without.K[0, 0] != pytest.approx(80 * 70 / 96, rel=1e-3)


def test_where_neither_calibration_nor_network_knows_K_the_image_is_taken_as_60_degrees_wide(room) -> None:
    engine = room.Engine(kind="mono")
    frame = dataclasses.replace(room.frame(engine, 0, room.pose()), calibration=None)
    K = Stream(engine, room.config).register([frame])[0].K
    np.testing.assert_allclose(K, [[42 * np.sqrt(3), 0, 41.5], [0, 42 * np.sqrt(3), 27.5], [0, 0, 1]])
