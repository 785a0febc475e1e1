"""Messages hold what the results hold, in the conventions that other nodes rely on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from da3_core.types import ScaleEstimate, ScaleSource
from da3_ros import to_msg
from da3_ros.bag.typestore import RosbagsTypes
from da3_ros.from_msg import rigid_from_msg, stamp_ns, transform_from_odometry, transforms_from_msg
from da3_ros.to_msg import StreamCounts

from .messages import STORE
from .results import T_WORLD_CAM, H, K, W, make_result

TYPES = RosbagsTypes(STORE)
COUNTS = StreamCounts(10, 8, 1)
Array = np.ndarray[Any, Any]


def through_wire(msg: Any) -> Any:
    return STORE.deserialize_cdr(STORE.serialize_cdr(msg, msg.__msgtype__), msg.__msgtype__)


def cloud_columns(msg: Any) -> dict[str, Array]:
    """By the message's own description of its fields."""
    rows = np.asarray(msg.data).reshape(msg.height * msg.width, msg.point_step)
    return {f.name: np.ascontiguousarray(rows[:, f.offset : f.offset + 4]).view("<f4")[:, 0] for f in msg.fields}


def test_depth_in_metres_is_exact() -> None:
    result = make_result()
    msg = through_wire(to_msg.depth_image(TYPES, result))
    assert (msg.encoding, msg.height, msg.width, msg.step, msg.is_bigendian) == ("32FC1", H, W, 4 * W, 0)
    np.testing.assert_array_equal(msg.data.view("<f4").reshape(H, W), result.depth_m)
    assert stamp_ns(msg.header.stamp) == result.stamp_ns
    assert msg.header.frame_id == "front_optical"


def test_depth_in_millimetres_has_zero_for_what_is_not_known_or_too_far() -> None:
    depth = np.array([[np.nan, 0.0004, 0.0012], [1.2344, 65.535, 65.6]], np.float32)
    msg = through_wire(to_msg.depth_image(TYPES, make_result(depth_m=depth), "16UC1"))
    assert (msg.encoding, msg.step) == ("16UC1", 6)
    np.testing.assert_array_equal(msg.data.view("<u2").reshape(2, 3), [[0, 0, 1], [1234, 65535, 0]])


def test_camera_info_belongs_to_the_depth() -> None:
    result = make_result()
    depth, info = through_wire(to_msg.depth_image(TYPES, result)), through_wire(to_msg.camera_info(TYPES, result))
    assert info.header == depth.header
    assert (info.height, info.width, info.distortion_model) == (depth.height, depth.width, "plumb_bob")
    np.testing.assert_array_equal(info.k.reshape(3, 3), K)
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, :3], K)
    assert not info.d.any()
    assert not info.p.reshape(3, 4)[:, 3].any()
    np.testing.assert_array_equal(info.r.reshape(3, 3), np.eye(3))


def test_organised_clouds_lie_under_their_pixels() -> None:
    result = make_result()
    msg = through_wire(to_msg.point_cloud(TYPES, result))
    assert (msg.height, msg.width, msg.row_step, msg.is_dense) == (H, W, msg.point_step * W, False)
    columns = cloud_columns(msg)
    v, u = np.mgrid[0:H, 0:W].reshape(2, -1)
    z = result.depth_m.reshape(-1)
    np.testing.assert_array_equal(columns["z"], z)
    np.testing.assert_allclose(columns["x"], (u - K[0, 2]) / K[0, 0] * z, rtol=1e-5)
    np.testing.assert_allclose(columns["y"], (v - K[1, 2]) / K[1, 1] * z, rtol=1e-5)
    assert np.isnan(columns["x"][np.isnan(z)]).all()
    colours = columns["rgb"].view("<u4")
    found = np.stack([colours >> 16 & 255, colours >> 8 & 255, colours & 255], -1)
    np.testing.assert_array_equal(found.reshape(H, W, 3), result.image)
    np.testing.assert_array_equal(columns["confidence"].reshape(H, W), result.confidence)


def test_dense_clouds_drop_what_is_not_known() -> None:
    result = make_result()
    organised, dense = (to_msg.point_cloud(TYPES, result, layout) for layout in ("organised", "dense"))
    known = np.isfinite(result.depth_m).reshape(-1)
    assert (dense.height, dense.width, dense.is_dense) == (1, known.sum(), True)
    for name, column in cloud_columns(through_wire(dense)).items():
        np.testing.assert_array_equal(column.view("<u4"), cloud_columns(organised)[name][known].view("<u4"))


def test_clouds_say_dense_when_they_are_and_have_no_confidence_they_do_not_know() -> None:
    msg = to_msg.point_cloud(TYPES, make_result(depth_m=np.ones((H, W), np.float32), confidence=None))
    assert msg.is_dense
    assert [f.name for f in msg.fields] == ["x", "y", "z", "rgb"]
    assert msg.point_step == 16


def test_poses_round_trip_in_the_world_frame() -> None:
    result = make_result()
    pose = through_wire(to_msg.pose_stamped(TYPES, result, "odom"))
    assert pose.header.frame_id == "odom"
    np.testing.assert_allclose(rigid_from_msg(pose.pose), T_WORLD_CAM, atol=1e-12)
    message = through_wire(to_msg.odometry(TYPES, result, "odom"))
    assert min(message.pose.covariance.reshape(6, 6).diagonal()) == min(message.twist.covariance.reshape(6, 6).diagonal()) == 1e6
    odometry = transform_from_odometry(message)
    (transform,) = transforms_from_msg(through_wire(to_msg.tf_message(TYPES, [to_msg.pose_transform(TYPES, result, "odom")])))
    for found in (odometry, transform):
        assert (found.stamp_ns, found.parent, found.child) == (result.stamp_ns, "odom", "front_optical_da3")
        np.testing.assert_allclose(found.T_parent_child, T_WORLD_CAM, atol=1e-12)


def test_results_without_a_pose_have_none_to_publish() -> None:
    with pytest.raises(ValueError, match="has no pose"):
        to_msg.pose_stamped(TYPES, make_result(T_world_cam=None), "odom")


def test_status() -> None:
    msg = through_wire(to_msg.stream_status(TYPES, [make_result(), make_result(camera="rear")], "odom", COUNTS))
    assert (msg.cameras, msg.mode, msg.scale, msg.scale_source, msg.window_views) == (["front", "rear"], "posed", 2.5, "baselines", 3)
    assert dict(zip(msg.stages, msg.stage_s, strict=True)) == {"engine": 0.25, "anchor": 0.5}
    assert (msg.frames_in, msg.frames_out, msg.frames_dropped) == (10, 8, 1)
    assert np.isnan(msg.latency_s)


@pytest.mark.parametrize("source", ["network", "none"])
def test_a_scale_that_is_not_known_is_no_number(source: ScaleSource) -> None:
    msg = through_wire(to_msg.stream_status(TYPES, [make_result(scale=ScaleEstimate(1.0, 0.0, source))], "odom", COUNTS))
    assert np.isnan(msg.scale) and msg.scale_source == source


def test_a_whole_prediction() -> None:
    results = [make_result(), make_result(camera="rear", T_world_cam=None, confidence=None)]
    msg = through_wire(to_msg.prediction(TYPES, results, "odom", to_msg.stream_status(TYPES, results, "odom", COUNTS)))
    front, rear = msg.views
    np.testing.assert_array_equal(front.depth.data.view("<f4").reshape(H, W), results[0].depth_m)
    assert (front.has_pose, rear.has_pose, front.confidence.height, rear.confidence.height) == (True, False, H, 0)
    np.testing.assert_allclose(rigid_from_msg(front.pose), T_WORLD_CAM, atol=1e-12)


@pytest.mark.ros
@pytest.mark.parametrize(
    "make",
    [
        to_msg.depth_image,
        to_msg.camera_info,
        to_msg.point_cloud,
        to_msg.confidence_image,
        lambda types, result: to_msg.odometry(types, result, "odom"),
        lambda types, result: to_msg.tf_message(types, [to_msg.pose_transform(types, result, "odom")]),
        lambda types, result: to_msg.prediction(types, [result], "odom", to_msg.stream_status(types, [result], "odom", COUNTS)),
    ],
)
def test_rclpy_messages_have_the_same_bytes(make: Any) -> None:
    pytest.importorskip("rclpy", reason="needs a sourced ROS 2")
    from rclpy.serialization import serialize_message

    ours = make(TYPES, make_result())
    live = bytes(serialize_message(make(to_msg.RclpyTypes(), make_result())))
    offline = bytes(STORE.serialize_cdr(ours, ours.__msgtype__))
    padding_zeroed = STORE.serialize_cdr(STORE.deserialize_cdr(live, ours.__msgtype__), ours.__msgtype__)
    assert bytes(padding_zeroed) == offline  # Fast CDR leaves what it likes between aligned fields
    assert 0 <= len(live) - len(offline) < 4
