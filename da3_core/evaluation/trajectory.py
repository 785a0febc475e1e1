"""Trajectory accuracy, by the evo library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from da3_core.types import Float64Array

TrajectoryAlignment = Literal["none", "se3", "sim3"]


@dataclass(frozen=True)
class TrajectoryErrors:
    """Root mean squares over the matched poses."""

    ate_m: float  # absolute, after the alignment
    rpe_m: float  # relative, from each matched pose to the next
    rpe_deg: float
    scale: float  # what the alignment multiplied the estimate with
    matched: int
    length_m: float  # of the matched true trajectory


def trajectory_errors(
    stamps_ns: npt.NDArray[np.int64],
    T_world_cam: Float64Array,
    truth_stamps_ns: npt.NDArray[np.int64],
    truth: Float64Array,
    align: TrajectoryAlignment = "se3",
    max_time_diff_s: float = 0.01,
) -> TrajectoryErrors:
    """Errors of an estimated trajectory (N, 4, 4) against a true one (M, 4, 4), poses matched by stamp.

    Raises ValueError when fewer than three poses match, or when they are too degenerate (a line, a point) for the alignment asked for.
    """
    from evo.core import geometry, metrics, sync
    from evo.core.trajectory import PoseTrajectory3D

    def trajectory(stamps: npt.NDArray[np.int64], poses: Float64Array) -> PoseTrajectory3D:
        seconds = (stamps - truth_stamps_ns[0]) / 1e9  # relative: float64 seconds of an epoch are good to 0.2 microseconds only
        return PoseTrajectory3D(poses_se3=list(poses), timestamps=seconds)

    def root_mean_square(metric: metrics.PE) -> float:
        metric.process_data((true, found))
        return float(metric.get_statistic(metrics.StatisticsType.rmse))

    try:
        true, found = sync.associate_trajectories(
            trajectory(truth_stamps_ns, truth), trajectory(stamps_ns, T_world_cam), max_diff=max_time_diff_s
        )
        if true.num_poses < 3:
            raise ValueError(f"only {true.num_poses} poses match within {max_time_diff_s} s: give stamps of one clock")
        scale = found.align(true, correct_scale=align == "sim3")[2] if align != "none" else 1.0
    except (sync.SyncException, geometry.GeometryException) as error:
        raise ValueError(f"the trajectories cannot be compared: {error}") from error
    step = metrics.Unit.frames
    return TrajectoryErrors(
        ate_m=root_mean_square(metrics.APE(metrics.PoseRelation.translation_part)),
        rpe_m=root_mean_square(metrics.RPE(metrics.PoseRelation.translation_part, delta=1, delta_unit=step)),
        rpe_deg=root_mean_square(metrics.RPE(metrics.PoseRelation.rotation_angle_deg, delta=1, delta_unit=step)),
        scale=float(scale),
        matched=true.num_poses,
        length_m=float(true.path_length),
    )
