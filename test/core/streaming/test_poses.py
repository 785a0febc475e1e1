from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from da3_core.config import PoseConfig
from da3_core.streaming import PoseBuffer, StaleStamp
from da3_core.types import Float64Array

MS = 1_000_000


def random_pose(rng: np.random.Generator) -> Float64Array:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)
    return T


def test_between_two_poses_it_is_scipys_slerp_and_the_straight_line() -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.25, 0.5, 0.9, 1.0):
        T_a, T_b = random_pose(rng), random_pose(rng)
        buffer = PoseBuffer()
        buffer.add(0, T_a)
        buffer.add(20 * MS, T_b)
        T = buffer.at(round(20 * MS * share))
        assert T is not None
        slerp = Slerp([0, 1], Rotation.from_matrix(np.stack([T_a[:3, :3], T_b[:3, :3]])))
        np.testing.assert_allclose(T[:3, :3], slerp(share).as_matrix(), atol=1e-9)
        np.testing.assert_allclose(T[:3, 3], (1 - share) * T_a[:3, 3] + share * T_b[:3, 3], atol=1e-12)


def test_nothing_is_extrapolated_beyond_the_tolerance_nor_bridged_over_a_gap() -> None:
    rng = np.random.default_rng(1)
    first, second, third = (random_pose(rng) for _ in range(3))
    buffer = PoseBuffer(PoseConfig(tolerance_s=0.05, max_gap_s=0.5))
    assert buffer.at(0) is None
    for stamp_ms, T in ((1000, first), (1100, second), (1700, third)):
        buffer.add(stamp_ms * MS, T)
    for stamp_ms, expected in ((950, first), (1150, second), (1650, third), (1749, third)):
        np.testing.assert_array_equal(buffer.at(stamp_ms * MS), expected)
    for stamp_ms in (949, 1151, 1400, 1649, 1751):
        assert buffer.at(stamp_ms * MS) is None
    assert buffer.newest_ns == 1700 * MS


def test_what_is_no_pose_is_refused_and_changes_nothing() -> None:
    buffer = PoseBuffer()
    buffer.add(0, np.eye(4))
    not_finite, scaled, mirrored = np.eye(4), np.diag([1.01, 1.01, 1.01, 1]), np.diag([1.0, 1, -1, 1])
    not_finite[0, 3] = np.nan
    for T in (not_finite, scaled, mirrored, np.eye(3)):
        with pytest.raises(ValueError, match="no rigid transform"):
            buffer.add(10 * MS, T)
    assert buffer.newest_ns == 0


def test_a_stamp_that_goes_back_is_refused_and_a_clock_that_does_begins_anew() -> None:
    buffer = PoseBuffer()
    buffer.add(5000 * MS, np.eye(4))
    for stamp_ms in (5000, 4001):
        with pytest.raises(StaleStamp, match="does not come after"):
            buffer.add(stamp_ms * MS, np.eye(4))
    buffer.add(4000 * MS, np.eye(4))
    assert buffer.newest_ns == 4000 * MS
    assert buffer.at(5000 * MS) is None


@pytest.mark.parametrize(("stamp_s", "is_kept"), [(5.0, True), (4.5, True), (3.0, False), (9.0, True)])
def test_a_clock_that_went_back_by_far_takes_what_is_of_the_other_run(stamp_s: float, is_kept: bool) -> None:
    buffer = PoseBuffer()
    buffer.add(5_000_000_000, np.eye(4))
    buffer.forget_other_runs(int(stamp_s * 1e9))
    assert (buffer.newest_ns == 5_000_000_000) == is_kept


def test_memory_is_bounded_and_the_pose_it_gives_is_the_callers() -> None:
    buffer = PoseBuffer(PoseConfig(memory_s=2.0))
    for k in range(5000):
        buffer.add(k * 10 * MS, np.eye(4))
    assert len(buffer._stamps_ns) < 450
    assert len(buffer._poses) == len(buffer._stamps_ns)
    assert buffer.at(4900 * 10 * MS) is not None
    given = buffer.at(4999 * 10 * MS)
    assert given is not None
    given[:] = 7
    np.testing.assert_array_equal(buffer.at(4999 * 10 * MS), np.eye(4))
