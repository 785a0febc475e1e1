from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from da3_core.streaming.parallax import ROTATION_SIGMA, Parallax, fit_parallax
from da3_core.streaming.tracks import Tracks, track
from da3_core.types import Float64Array

UNIT = 1 / 3.0  # network units per metre


def true_tracks(room, T_now: Float64Array, T_before: Float64Array, now: Float64Array | None = None) -> Tracks:
    """Where points (P, 2) of the view at T_now are seen from T_before: unprojected, moved and projected one by one."""
    depth, K = room.depth(T_now).numpy(), room.K.numpy()
    if now is None:
        columns, rows = np.meshgrid(np.arange(6, 80, 7), np.arange(5, 52, 7))
        now = np.stack([columns.ravel(), rows.ravel()], -1) + 0.5
    column, row = now.astype(int).T
    points = np.concatenate([(now - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones((len(now), 1))], 1) * depth[row, column][:, None]
    world = points @ T_now[:3, :3].T + T_now[:3, 3]
    seen = (world - T_before[:3, 3]) @ T_before[:3, :3]
    return Tracks(now, seen[:, :2] / seen[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2])


def fitted(room, tracks: Tracks, T_now: Float64Array, T_before_now: Float64Array) -> Parallax:
    return fit_parallax(tracks, (room.depth(T_now) * UNIT).float().numpy(), room.K.numpy(), T_before_now)


MOTIONS = {
    "forward": {"z": 0.3},
    "sideways": {"x": 0.2},
    "turning": {"x": 0.1, "z": 0.2, "yaw_deg": 12},
    "up and back": {"y": 0.2, "z": -0.3},
}


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_scale_is_recovered_from_points_that_move_as_they_must(room, motion: str) -> None:
    T_before, T_now = room.pose(), room.pose(**MOTIONS[motion])
    fit = fitted(room, true_tracks(room, T_now, T_before), T_now, np.linalg.inv(T_before) @ T_now)
    assert np.exp(fit.log_scale) == pytest.approx(1 / UNIT, rel=0.01)
    assert fit.rotation_rad < 1e-3
    assert fit.support > 0.75  # all of them, but for the doubt that each may be far away
    assert fit.is_good


def test_its_variance_is_honest_under_noise_and_outliers_do_not_move_it(room) -> None:
    rng = np.random.default_rng(0)
    T_before, T_now = room.pose(), room.pose(x=0.1, z=0.2, yaw_deg=3)
    exact = true_tracks(room, T_now, T_before)
    errors, sigmas = [], []
    for _ in range(60):
        before = exact.before + rng.normal(0, 0.4, exact.before.shape)
        before[:15] += rng.uniform(-30, 30, (15, 2))  # a fifth of them
        fit = fitted(room, Tracks(exact.now, before), T_now, np.linalg.inv(T_before) @ T_now)
        errors.append(fit.log_scale - np.log(1 / UNIT))
        sigmas.append(np.sqrt(fit.log_variance))
    assert abs(np.mean(errors)) < 0.02
    assert 0.4 < np.std(errors) / np.median(sigmas) < 1.5


def test_depth_of_the_wrong_shape_counts_by_the_point_not_by_how_far_it_moves(room) -> None:
    """Near points are predicted too far away by a third. They move most, but most points are others."""
    T_before, T_now = room.pose(), room.pose(x=0.3)
    exact, depth = true_tracks(room, T_now, T_before), room.depth(T_now).numpy()
    near = depth < np.quantile(depth, 0.35)
    warped = np.where(near, depth * 1.33, depth).astype(np.float32) * np.float32(UNIT)
    fit = fit_parallax(exact, warped, room.K.numpy(), np.linalg.inv(T_before) @ T_now)
    by_pixel = np.median(np.log(depth / warped))
    assert fit.is_good
    assert abs(fit.log_scale - by_pixel) < 0.06


def test_what_is_seen_through_a_window_does_not_stretch_the_room(room) -> None:
    """A third of the points do not move at all, and were predicted to be at the window's distance."""
    T_before, T_now = room.pose(), room.pose(x=0.3, yaw_deg=3)
    exact = true_tracks(room, T_now, T_before)
    T_before_now = np.linalg.inv(T_before) @ T_now
    rays = np.concatenate([exact.now, np.ones((len(exact.now), 1))], 1) @ np.linalg.inv(room.K.numpy()).T @ T_before_now[:3, :3].T
    far = rays @ room.K.numpy().T
    outside = ((exact.now[:, 0] > 32) & (exact.now[:, 0] < 58))[:, None]
    assert 0.3 < outside.mean() < 0.4
    fit = fitted(room, Tracks(exact.now, np.where(outside, far[:, :2] / far[:, 2:], exact.before)), T_now, T_before_now)
    assert np.exp(fit.log_scale) == pytest.approx(1 / UNIT, rel=0.04)
    assert fit.is_good
    assert fit.support < 0.7


@pytest.mark.parametrize("unknown", [np.nan, 0.0, np.inf])
def test_pixels_without_depth_say_nothing(room, unknown: float) -> None:
    T_before, T_now = room.pose(), room.pose(x=0.3)
    depth = (room.depth(T_now) * UNIT).float().numpy()
    depth[:, ::3] = unknown
    exact = true_tracks(room, T_now, T_before)
    fit = fit_parallax(exact, depth, room.K.numpy(), np.linalg.inv(T_before) @ T_now)
    assert np.exp(fit.log_scale) == pytest.approx(1 / UNIT, rel=0.02)
    assert fit.is_good


def test_a_rotation_that_is_a_little_off_is_found_and_does_not_spoil_the_scale(room) -> None:
    T_before, T_now = room.pose(), room.pose(z=0.3)
    off_deg = 0.3
    given = np.linalg.inv(room.pose(yaw_deg=off_deg)) @ T_now
    fit = fitted(room, true_tracks(room, T_now, T_before), T_now, given)
    assert np.rad2deg(fit.rotation_rad) == pytest.approx(off_deg, rel=0.2)
    assert np.exp(fit.log_scale) == pytest.approx(1 / UNIT, rel=0.05)


@pytest.mark.parametrize("motion", [{}, {"yaw_deg": 8}, {"x": 0.004, "yaw_deg": 3}], ids=["still", "rotation only", "jitter"])
def test_without_parallax_nothing_is_claimed(room, motion: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    T_before, T_now = room.pose(), room.pose(**motion)
    exact = true_tracks(room, T_now, T_before)
    for _ in range(20):
        noisy = Tracks(exact.now, exact.before + rng.normal(0, 0.3, exact.before.shape))
        assert not fitted(room, noisy, T_now, np.linalg.inv(T_before) @ T_now).is_good


def test_poses_that_the_images_contradict_are_not_fitted(room) -> None:
    T_before, T_now = room.pose(), room.pose(z=0.3)
    tracks = true_tracks(room, T_now, T_before)
    for wrong in (room.pose(z=0.3, yaw_deg=6), room.pose(x=0.3), room.pose(z=-0.3)):
        assert not fitted(room, tracks, T_now, wrong).is_good
    assert np.deg2rad(1) > ROTATION_SIGMA


WAYS = [
    {"x": 0.15, "z": -1.8, "yaw_deg": 4},
    {"z": -1.7},
    {"x": 0.3, "z": -2},
    {"x": -0.2, "z": -1.9, "yaw_deg": -5},
    {"x": 0.2, "z": -2.2},
]


def tracked(room, T_now: Float64Array, T_before: Float64Array) -> Tracks | None:
    return track(room.view(1, T_now), room.view(0, T_before), room.K.numpy(), np.linalg.inv(T_before) @ T_now)


def test_points_are_tracked_to_where_they_are_and_tell_the_scale(room) -> None:
    """To within what so small an image can tell: one fit in five per cent or so, and all of them together in less."""
    fits = []
    for way in WAYS:
        T_before, T_now = room.pose(z=-2), room.pose(**way)
        tracks = tracked(room, T_now, T_before)
        assert tracks is not None
        assert len(tracks.now) > 25
        errors = np.linalg.norm(tracks.before - true_tracks(room, T_now, T_before, tracks.now).before, axis=1)
        assert np.median(errors) < 0.2
        assert np.median(np.linalg.norm(tracks.before - tracks.now, axis=1)) > 1
        fits.append(fitted(room, tracks, T_now, np.linalg.inv(T_before) @ T_now))
    assert all(fit.is_good for fit in fits)
    misses = np.array([fit.log_scale - np.log(1 / UNIT) for fit in fits])
    sigmas = np.sqrt([fit.log_variance for fit in fits])
    assert (np.abs(misses) < 2 * sigmas).all()
    assert np.median(sigmas) < 0.12
    assert abs(misses.mean()) < 0.05


@pytest.mark.parametrize("yaw_deg", [12, -20])
def test_a_turn_is_followed_however_far_it_moves_the_points(room, yaw_deg: float) -> None:
    T_before, T_now = room.pose(z=-2), room.pose(x=0.15, z=-1.9, yaw_deg=yaw_deg)
    tracks = tracked(room, T_now, T_before)
    assert tracks is not None
    assert np.median(np.linalg.norm(tracks.before - tracks.now, axis=1)) > 12
    errors = np.linalg.norm(tracks.before - true_tracks(room, T_now, T_before, tracks.now).before, axis=1)
    assert np.median(errors) < 0.25


def test_every_part_of_an_image_has_its_say(room) -> None:
    tracks = tracked(room, room.pose(x=0.1, z=-2), room.pose(z=-2))
    assert tracks is not None
    quarters = np.unique((tracks.now / [42, 28]).astype(int) @ [1, 2], return_counts=True)[1]
    assert len(quarters) == 4
    assert quarters.min() >= 0.15 * quarters.sum()


def test_a_change_of_exposure_does_not_lose_them(room) -> None:
    T_now, T_before = room.pose(z=-1.9), room.pose(z=-2)
    now, before = room.view(1, T_now), room.view(0, T_before)
    darker = replace(before, image=(before.image * 0.6).byte())
    tracks = track(now, darker, room.K.numpy(), np.linalg.inv(T_before) @ T_now)
    assert tracks is not None
    errors = np.linalg.norm(tracks.before - true_tracks(room, T_now, T_before, tracks.now).before, axis=1)
    assert np.median(errors) < 0.3


def test_where_nothing_can_be_tracked_there_are_no_tracks(room) -> None:
    blank, seen, still = room.view(0), room.view(1, room.pose()), np.eye(4)
    assert track(blank, blank, room.K.numpy(), still) is None
    assert track(seen, blank, room.K.numpy(), still) is None
