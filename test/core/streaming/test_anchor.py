"""Scale, world and mode of whole runs through the room, against the room."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from da3_core.config import ModeConfig, ScaleConfig, WindowConfig
from da3_core.geometry.sim3 import transform_cameras, umeyama
from da3_core.streaming import Stream

RELATIVE = ScaleConfig(unknown="relative")
CURVE = {"x": lambda k: 1.5 * np.sin(k / 30), "z": lambda k: -2 + 0.04 * k, "yaw_deg": lambda k: 20 * np.sin(k / 20)}


def errors(ratios: np.ndarray) -> np.ndarray:
    """Relative errors of depth where it was published."""
    return np.abs(np.log(ratios[~np.isnan(ratios)]))


@pytest.mark.parametrize("unit", ["random", "scene", "cameras"])
@pytest.mark.parametrize("chain", ["always", "when_blind"])
def test_a_posed_run_is_metric_whatever_the_networks_unit_follows(room, unit: str, chain: str) -> None:
    path = [room.pose(z=-3 + 0.08 * k, yaw_deg=2 * k) for k in range(50)]
    given = room.jittered(path, 0.01)
    drive = room.drive(room.Engine(unit=unit), path, given, room.configured(scale=ScaleConfig(chain=chain)))
    assert np.isnan(drive.depth_ratios[0])  # one view alone has no scale, and nothing that is not metric is published
    assert drive.sources[0] == "none"
    steady = errors(drive.depth_ratios[5:])
    assert len(steady) == 45
    assert np.median(steady) < (0.015 if chain == "always" else 0.03)
    assert steady.max() < (0.06 if chain == "always" else 0.15)
    for result, T in zip(drive.results, given, strict=True):
        np.testing.assert_allclose(result.T_world_cam, T)


def test_standing_still_before_the_first_motion_nothing_is_called_metric(room) -> None:
    path = [room.pose()] * 10
    drive = room.drive(room.Engine(), path, room.jittered(path, 0.002))
    assert set(drive.sources) == {"none"}
    assert np.isnan(drive.depth_ratios).all()
    relative = room.drive(room.Engine(), path, room.jittered(path, 0.002), room.configured(scale=RELATIVE))
    assert np.isfinite(relative.depth_ratios).all()
    assert not any(result.scale.is_metric for result in relative.results)


@pytest.mark.parametrize("unit", ["random", "scene", "cameras"])
def test_turning_on_the_spot_and_standing_still_keep_the_metres_though_the_unit_changes(room, unit: str) -> None:
    way = [room.pose(z=0.1 * k) for k in range(8)]
    turn = [room.pose(z=0.7, yaw_deg=6 * k) for k in range(40)]
    path = way + turn + [turn[-1]] * 20
    drive = room.drive(room.Engine(unit=unit), path, room.jittered(path, 0.002))
    assert set(drive.sources[20:]) == {"chained"}
    assert errors(drive.depth_ratios[8:]).max() < 0.08
    variances = [result.scale.log_variance for result in drive.results]
    assert variances[-1] > variances[10]  # it has not seen a baseline for long, and says so


def test_a_lone_view_holds_the_last_scale(room) -> None:
    path = [room.pose(z=0.1 * k) for k in range(6)]
    engine = room.Engine(unit="scene")
    drive = room.drive(engine, path, path)
    alone = room.drive(engine, path[:3], path[:3], room.configured(window=WindowConfig(views=1)))
    assert set(drive.sources[1:]) == {"baselines"}
    assert set(alone.sources) == {"none"}  # and a window of one never sees one


def test_a_rig_sees_its_scale_standing_still(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.config)
    poses = {"left": room.pose(x=-0.2), "right": room.pose(x=0.2)}
    for k in range(5):
        results = stream.register([room.frame(engine, k, T, T, camera) for camera, T in poses.items()])
        assert [result.camera for result in results] == ["left", "right"]
        for result in results:
            assert result.scale.source == "baselines"
            true = room.depth(poses[result.camera]).numpy()
            assert np.nanmedian(result.depth_m / true) == pytest.approx(1, abs=0.15)


def test_cameras_of_a_rig_without_poses_find_their_place_by_the_one_that_has_one(room) -> None:
    """While it stands still there are no metres; from then on, nothing that was placed without them is in the way."""
    engine = room.Engine(position_noise_m=0.003, rotation_noise_deg=0.2)
    stream = Stream(engine, room.configured(window=WindowConfig(views=9, keyframe_interval_s=0.3)))
    metric = 0
    for k in range(24):
        forward = 0.05 * max(0, k - 12)
        poses = {camera: room.pose(x=x, z=forward, yaw_deg=40) for camera, x in (("left", -0.3), ("right", 0.3), ("far", 1.5))}
        given = {"left": poses["left"]}
        results = stream.register([room.frame(engine, k, T, given.get(camera), camera) for camera, T in poses.items()])
        np.testing.assert_allclose(results[0].T_world_cam, poses["left"], atol=1e-12)
        for result in results[1:]:
            true = poses[result.camera]
            assert (result.T_world_cam is not None) == result.scale.is_metric
            if result.scale.is_metric:
                metric += 1
                np.testing.assert_allclose(result.T_world_cam[:3, :3], true[:3, :3], atol=0.02)
                assert np.linalg.norm(result.T_world_cam[:3, 3] - true[:3, 3]) < 0.3
                assert np.nanmedian(result.depth_m / room.depth(true).numpy()) == pytest.approx(1, abs=0.15)
    assert metric >= 18


@pytest.mark.parametrize("unknown", ["drop", "relative"])
def test_poses_that_come_late_begin_a_world_in_which_nothing_of_the_one_before_is_left(room, unknown: str) -> None:
    """Ten images without poses, far from the origin of those that come then, and no more of them after ten others."""
    path = [room.pose(x=2, y=0.4, z=-3 + 0.08 * k, yaw_deg=50 + k) for k in range(30)]
    given = [None] * 10 + path[10:20] + [None] * 10
    drive = room.drive(room.Engine(), path, given, room.configured(scale=ScaleConfig(unknown=unknown)))
    assert [result.world for result in drive.results] == ["own"] * 10 + ["given"] * 20
    assert [result.T_world_cam is None for result in drive.results[:10]] == [unknown == "drop"] * 10
    for k, result in enumerate(drive.results[10:], 10):
        np.testing.assert_allclose(result.T_world_cam, path[k], atol=1e-12 if k < 20 else 0.15)


def test_cameras_without_poses_are_joined_to_the_first_given_one_and_to_nothing_before_it(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.configured(scale=RELATIVE))
    for k in range(12):
        poses = {camera: room.pose(x=x, z=0.08 * k, yaw_deg=50) for camera, x in (("left", -0.3), ("right", 0.3))}
        given = {"left": poses["left"]} if k >= 10 else {}
        results = stream.register([room.frame(engine, k, T, given.get(camera), camera) for camera, T in poses.items()])
        assert {result.world for result in results} == {"given" if given else "own"}
        if given:
            np.testing.assert_allclose(results[1].T_world_cam[:3, :3], poses["right"][:3, :3], atol=0.06)


def test_poses_that_are_not_to_be_used_name_no_world(room) -> None:
    path = [room.pose(x=2, z=-3 + 0.08 * k) for k in range(10)]
    config = room.configured(mode=ModeConfig(mode="unposed"), scale=RELATIVE)
    drive = room.drive(room.Engine(), path, path, config)
    assert {result.world for result in drive.results} == {"own"}
    np.testing.assert_allclose(drive.results[0].T_world_cam, np.eye(4), atol=1e-9)


def test_poses_without_calibration_do_not_condition_but_place_and_scale(room) -> None:
    engine = room.Engine()
    stream = Stream(engine, room.config)
    for k in range(12):
        T = room.pose(x=1, z=0.1 * k)
        result = stream.register([dataclasses.replace(room.frame(engine, k, T, T), calibration=None)])[0]
        np.testing.assert_allclose(result.T_world_cam, T, atol=1e-12)
    assert (result.mode, result.mode_reason) == ("unposed", "no calibration of front")
    assert result.scale.source == "baselines"
    assert np.nanmedian(result.depth_m / room.depth(T).numpy()) == pytest.approx(1, abs=0.06)
    assert not any(posed for _, _, posed in engine.calls)


def test_bad_odometry_is_noticed_reported_and_forgiven(room) -> None:
    """For 30 frames the odometry turns the wrong way, as a slipping robot's does."""
    path = [room.pose(z=-3 + 0.08 * k, yaw_deg=2 * k) for k in range(90)]
    given = [room.pose(z=T[2, 3], yaw_deg=-6 * k) if 20 <= k < 50 else T for k, T in enumerate(path)]
    drive = room.drive(room.Engine(), path, given)
    assert set(drive.modes[:20]) == {"posed"}
    fallen = drive.modes.index("unposed")
    assert 20 < fallen <= 20 + 10 + 2  # a check every 10 windows, two of them to be sure
    assert "contradict" in drive.results[fallen].mode_reason
    assert set(drive.modes[fallen:50]) == {"unposed"}
    assert errors(drive.depth_ratios[fallen:]).max() < 0.06  # the metres go on
    assert set(drive.modes[-20:]) == {"posed"}
    assert "agree" in drive.results[-1].mode_reason
    np.testing.assert_array_equal(drive.results[-1].T_world_cam, given[-1])


def test_a_world_that_jumps_once_as_a_relocalised_one_does_leaves_the_metres_alone(room) -> None:
    path = [room.pose(z=-3 + 0.08 * k, yaw_deg=2 * k) for k in range(60)]
    jump = np.array([[0, 0, 0, 0.0], [0, 0, 0, 0], [0, 0, 0, 1.5], [0, 0, 0, 0]])
    given = [T + jump if k >= 30 else T for k, T in enumerate(path)]
    drive = room.drive(room.Engine(believes_poses=False), path, given)
    assert errors(drive.depth_ratios[10:]).max() < 0.08
    assert set(drive.modes[-15:]) == {"posed"}
    np.testing.assert_array_equal(drive.results[-1].T_world_cam, given[-1])


def test_good_odometry_is_kept_though_the_network_knows_less_of_its_cameras(room) -> None:
    path = [room.pose(z=-3 + 0.08 * k, yaw_deg=2 * k) for k in range(50)]
    engine = room.Engine(textured=True, unposed_rotation_noise_deg=25)
    drive = room.drive(engine, path, room.jittered(path, 0.003))
    assert set(drive.modes) == {"posed"}
    assert "the images side with them" in drive.results[-1].mode_reason
    blind = room.drive(room.Engine(unposed_rotation_noise_deg=25), path, path)
    assert "unposed" in blind.modes  # where the images show nothing, the network is all there is to ask


def test_bad_odometry_is_noticed_by_the_images_too(room) -> None:
    path = [room.pose(z=-3 + 0.08 * k, yaw_deg=2 * k) for k in range(70)]
    given = [room.pose(z=T[2, 3], yaw_deg=-6 * k) if k >= 20 else T for k, T in enumerate(path)]
    drive = room.drive(room.Engine(textured=True), path, given)
    assert 20 < drive.modes.index("unposed") <= 32
    assert set(drive.modes[-30:]) == {"unposed"}
    assert errors(drive.depth_ratios[22:]).max() < 0.08


@pytest.mark.parametrize("chain", ["always", "when_blind"])
def test_a_network_that_predicts_motion_too_short_does_not_spoil_the_metres(room, chain: str) -> None:
    """By the camera centres depth would be half too large; by parallax it is not."""
    path = [room.pose(x=0.3 * np.sin(k / 9), z=-3 + 0.08 * k, yaw_deg=20 * np.sin(k / 15)) for k in range(60)]
    engine = room.Engine(textured=True, camera_bias=1 / 1.5)
    drive = room.drive(engine, path, room.jittered(path, 0.003), room.configured(scale=ScaleConfig(chain=chain)))
    assert drive.sources[5:].count("parallax") > 30
    assert np.median(errors(drive.depth_ratios[5:])) < 0.03
    assert errors(drive.depth_ratios[10:]).max() < 0.15
    blind = room.drive(room.Engine(camera_bias=1 / 1.5), path, path)
    assert np.median(blind.depth_ratios[10:]) == pytest.approx(1.5, rel=0.1)


WINDING = [(0.3 * np.sin(k / 9), -3 + 0.08 * k, 20 * np.sin(k / 15)) for k in range(60)]


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize("way", ["straight line", "curve"])
def test_parallax_needs_two_views_and_no_bend(room, views: int, way: str) -> None:
    path = [room.pose(x if way == "curve" else 0.0, 0.0, z, yaw if way == "curve" else 0.0) for x, z, yaw in WINDING[:40]]
    config = room.configured(window=WindowConfig(views=views), mode=ModeConfig(mode="posed"))
    drive = room.drive(room.Engine(textured=True, camera_bias=0.6), path, room.jittered(path, 0.005), config)
    assert drive.sources.count("parallax") > 25
    assert np.median(errors(drive.depth_ratios[5:])) < 0.03
    assert errors(drive.depth_ratios[8:]).max() < 0.1


def test_turning_on_the_spot_and_standing_still_with_jitter_show_no_parallax(room) -> None:
    way = [room.pose(z=-2.5 + 0.1 * k) for k in range(12)]
    turn = [room.pose(z=way[-1][2, 3], yaw_deg=4 * k) for k in range(25)]
    path = way + turn + [turn[-1]] * 20
    drive = room.drive(room.Engine(textured=True, camera_bias=0.6), path, room.jittered(path, 0.002))
    assert "parallax" in drive.sources[:12]
    assert set(drive.sources[22:]) == {"chained"}  # the last views from the way have left
    assert errors(drive.depth_ratios[12:]).max() < 0.1
    still = room.drive(room.Engine(textured=True), [path[0]] * 10, room.jittered([path[0]] * 10, 0.002))
    assert set(still.sources) == {"none"}


def test_metres_are_those_of_odometry_that_drifts(room) -> None:
    """Wheels that are two per cent too small and a heading that wanders off by a degree a metre."""
    path = [room.pose(x, 0.0, z, yaw) for x, z, yaw in WINDING]
    given = [room.pose(1.02 * x, 0.0, 1.02 * z, yaw + 0.08 * k) for k, (x, z, yaw) in enumerate(WINDING)]
    drive = room.drive(room.Engine(textured=True, camera_bias=0.6), path, given)
    assert set(drive.modes) == {"posed"}
    assert np.median(drive.depth_ratios[8:]) == pytest.approx(1.02, abs=0.015)
    assert errors(drive.depth_ratios[8:] / 1.02).max() < 0.1


def test_poses_that_are_set_are_not_checked(room) -> None:
    path = [room.pose(z=0.1 * k) for k in range(30)]
    engine = room.Engine()
    drive = room.drive(engine, path, [room.pose(yaw_deg=20 * k) for k in range(30)], room.configured(mode=ModeConfig(mode="posed")))
    assert set(drive.modes) == {"posed"}
    assert all(posed for _, _, posed in engine.calls)


def test_a_check_costs_no_depth_and_is_made_every_so_many_windows(room) -> None:
    path = [room.pose(z=0.1 * k) for k in range(45)]
    engine = room.Engine()
    room.drive(engine, path, path, room.configured(mode=ModeConfig(gate_interval=10)))
    checks = [wanted for _, wanted, posed in engine.calls if not posed]
    assert set(checks) == {()}
    assert len(checks) == 5  # of the second window, the first one with a motion, and of every tenth from there


def test_a_gap_in_the_odometry_is_bridged_in_its_own_metres_and_world(room) -> None:
    path = [room.pose(x=CURVE["x"](k), z=-2 + 0.06 * k) for k in range(60)]
    given = [None if 30 <= k < 40 else T for k, T in enumerate(path)]
    drive = room.drive(room.Engine(position_noise_m=0.003), path, given)
    assert set(drive.modes[30:40]) == {"unposed"}
    assert "no pose of" in drive.results[30].mode_reason
    assert set(drive.modes[:30] + drive.modes[40:]) == {"posed"}
    offsets = [np.linalg.norm(r.T_world_cam[:3, 3] - T[:3, 3]) for r, T in drive]
    assert max(offsets[30:40]) < 0.15
    assert errors(drive.depth_ratios[30:40]).max() < 0.05


@pytest.mark.parametrize("views", [2, 4, 8])
@pytest.mark.parametrize("outliers", [0.0, 0.3])
def test_an_unposed_run_is_one_continuous_trajectory_in_one_unit(room, views: int, outliers: float) -> None:
    path = [room.pose(**{name: f(k) for name, f in CURVE.items()}) for k in range(100)]
    window = WindowConfig(views=views, keyframe_interval_s=0.3)
    drive = room.drive(room.Engine(outliers=outliers), path, [None] * 100, room.configured(scale=RELATIVE, window=window))
    assert set(drive.sources) == {"network"}
    found = torch.from_numpy(np.stack([result.T_world_cam for result in drive.results]))
    true = torch.from_numpy(np.stack(path))
    aligned = transform_cameras(umeyama(true[:, :3, 3], found[:, :3, 3]), found)
    error_m = torch.linalg.vector_norm(aligned[:, :3, 3] - true[:, :3, 3], dim=-1)
    assert float(error_m.square().mean().sqrt()) < {2: 0.12, 4: 0.07, 8: 0.05}[views]  # on a way of 5 metres
    steps = torch.linalg.vector_norm(aligned[1:, :3, 3] - aligned[:-1, :3, 3], dim=-1)
    assert float(steps.max()) < 0.2  # no seam
    ratios = drive.depth_ratios
    assert np.abs(np.log(ratios[3:] / np.median(ratios))).max() < 0.06


def test_metres_known_once_stay_known_without_poses(room) -> None:
    path = [room.pose(z=-3 + 0.06 * k) for k in range(60)]
    given = [T if k < 10 else None for k, T in enumerate(path)]
    drive = room.drive(room.Engine(), path, given)
    assert set(drive.sources[25:]) == {"chained"}  # since the last posed keyframe has left
    assert errors(drive.depth_ratios[15:]).max() < 0.08
    assert np.linalg.norm(drive.results[-1].T_world_cam[:3, 3] - path[-1][:3, 3]) < 0.3


def test_a_metric_model_needs_the_focal_length_and_nothing_else(room) -> None:
    path = [room.pose(z=0.5 * k) for k in range(4)]
    drive = room.drive(room.Engine(kind="metric"), path, [None] * 4)
    assert set(drive.modes) == {"metric"}
    assert set(drive.sources) == {"metric_model"}
    np.testing.assert_allclose(drive.depth_ratios, 1, atol=1e-4)
    assert all(result.T_world_cam is None for result in drive.results)
    assert {result.window_views for result in drive.results} == {1}
    with_poses = room.drive(room.Engine(kind="metric"), path, path)
    np.testing.assert_array_equal(with_poses.results[-1].T_world_cam, path[-1])


def test_a_metric_model_takes_the_mean_of_both_focal_lengths(room) -> None:
    engine = room.Engine(kind="metric")
    oblong = dataclasses.replace(room.calibration, K=room.calibration.K * np.array([[1.1, 1, 1], [1, 0.9, 1], [1, 1, 1]]))
    frame = dataclasses.replace(room.frame(engine, 0, room.pose()), calibration=oblong)
    depth_m = Stream(engine, room.config).register([frame])[0].depth_m
    assert np.nanmedian(depth_m / room.depth(room.pose()).numpy()) == pytest.approx(1, abs=1e-4)


def test_a_window_of_sky_alone_has_no_depth_and_does_not_end_the_trust_in_odometry(room) -> None:
    class Overcast(room.Engine):
        """A nested network that sees nothing but sky half of the time."""

        def infer(self, views, wanted, posed):  # type: ignore[no-untyped-def]
            prediction = super().infer(views, wanted, posed)
            if not 6 <= len(self.truth) <= 14:
                return prediction
            prediction.T_cam_world[:, :3, 3] = torch.nan
            return dataclasses.replace(prediction, depth=prediction.depth * torch.nan if wanted else None)

    path = [room.pose(z=-2 + 0.1 * k) for k in range(20)]
    drive = room.drive(Overcast(kind="nested"), path, path, room.configured(mode=ModeConfig(gate_interval=1)))
    assert set(drive.modes) == {"posed"}
    blind = np.isnan(drive.depth_ratios)
    assert blind.tolist() == [6 <= k + 1 <= 14 for k in range(20)]
    for result, T in drive:
        np.testing.assert_array_equal(result.T_world_cam, T)
    assert {source for source, is_blind in zip(drive.sources, blind, strict=True) if is_blind} == {"none"}
    assert errors(drive.depth_ratios[~blind]).max() < 0.15


def test_a_relative_model_has_no_metres(room) -> None:
    path = [room.pose(z=0.5 * k) for k in range(3)]
    drive = room.drive(room.Engine(kind="mono"), path, path)
    assert np.isnan(drive.depth_ratios).all()
    assert set(drive.sources) == {"none"}
    relative = room.drive(room.Engine(kind="mono"), path, path, room.configured(scale=RELATIVE))
    np.testing.assert_allclose(relative.depth_ratios, 5, atol=1e-3)


def test_a_nested_model_has_metres_from_the_start_and_the_known_focal_length_corrects_them(room) -> None:
    """It took a focal length 10 per cent too long for the true one, so its metres are 10 per cent too many."""
    path = [room.pose(z=-3 + 0.06 * k, yaw_deg=k) for k in range(40)]
    engine = room.Engine(kind="nested", focal_error=1.1)
    engine._unit = lambda *_: 1.1  # type: ignore[method-assign]
    drive = room.drive(engine, path, [None] * 40)
    assert set(drive.modes) == {"unposed"}
    assert set(drive.sources) == {"metric_model"}
    assert errors(drive.depth_ratios).max() < 0.05
    aligned_start = drive.results[0].T_world_cam @ np.linalg.inv(path[0])
    assert np.linalg.norm((drive.results[-1].T_world_cam - aligned_start @ path[-1])[:3, 3]) < 0.3


def test_modes_that_the_model_cannot_do_are_refused(room) -> None:
    with pytest.raises(ValueError, match="needs a metric or a nested model"):
        Stream(room.Engine(), room.configured(mode=ModeConfig(mode="metric")))
    with pytest.raises(ValueError, match="needs an any-view model"):
        Stream(room.Engine(kind="metric"), room.configured(mode=ModeConfig(mode="posed")))
