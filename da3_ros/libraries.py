"""The one place that decides between ROS's own libraries, where they are installed, and ours: what comes out is the same.

None of them is on PyPI, so they are absent from offline bag jobs and from our CI: cv_bridge, sensor_msgs_py, tf_transformations, tf2_ros.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from da3_core import Float64Array, FrameResult, PoseConfig, Uint8Array

from .frames import OwnBroadcaster, OwnTransforms, Report, Tf2Transforms, Transforms
from .from_msg import LAYOUTS, MessageError, rgb_from_any, rigid_from_msg
from .to_msg import MessageTypes, cloud_fields, cloud_points, header, point_cloud

log = logging.getLogger(__name__)

# What cv_bridge turns into rgb8 as we do. It knows no colours in 8UC1 and 8UC3, and fills a truncated JPEG with grey: those stay ours.
CV_BRIDGE_ENCODINGS = frozenset({"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"})


def make_image_decoder() -> Callable[[Any], Uint8Array]:
    """Image or CompressedImage -> (H, W, 3) RGB; raises MessageError for what is no picture."""
    try:
        from cv_bridge import CvBridge
        from cv_bridge.boost import cv_bridge_boost  # noqa: F401
    except ModuleNotFoundError:
        return rgb_from_any
    except Exception as error:  # it is compiled for one numpy, and does not load beside another, as pip's 2
        log.warning("cv_bridge is installed but does not load, images are decoded without it: %s", error)
        return rgb_from_any
    bridge = CvBridge()

    def decode(msg: Any) -> Uint8Array:
        if getattr(msg, "encoding", None) not in CV_BRIDGE_ENCODINGS or msg.step != msg.width * LAYOUTS[msg.encoding].channels:
            return rgb_from_any(msg)  # padded rows are sheared by several releases of cv_bridge
        try:
            return cast(Uint8Array, np.ascontiguousarray(bridge.imgmsg_to_cv2(msg, "rgb8")))
        except Exception as error:  # CvBridgeError, and numpy's own for data shorter than the picture
            raise MessageError(f"{msg.encoding} image of {msg.width}x{msg.height} cannot be decoded: {error}") from error

    return decode


def make_cloud_maker() -> Callable[[MessageTypes, FrameResult, str], Any]:
    """See to_msg.point_cloud."""
    try:
        from sensor_msgs_py import point_cloud2
    except ImportError:
        return point_cloud

    def make(types: MessageTypes, result: FrameResult, layout: str) -> Any:
        points = cloud_points(result, layout)
        if not points.size:  # create_cloud raises for no points
            return point_cloud(types, result, layout)
        fields = cloud_fields(types, points)
        as_declared = points.view([(column.name, "<f4") for column in fields])  # rgb: the bits of a float
        cloud = point_cloud2.create_cloud(header(types, result.stamp_ns, result.frame_id), fields, as_declared.reshape(-1))
        cloud.height, cloud.width = points.shape  # create_cloud itself would take (width, height)
        cloud.row_step = cloud.point_step * cloud.width
        cloud.is_dense = layout == "dense" or bool(np.isfinite(points["z"]).all())
        return cloud

    return make


def make_transforms(node: Any, config: PoseConfig, report: Report) -> Transforms:
    """`report` is told of transforms that cannot be used (tf2 logs them itself)."""
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        return OwnTransforms(node, config, report)
    return Tf2Transforms(node, config, make_rigid_reader())


def make_broadcaster(node: Any) -> Any:
    """Something with sendTransform(list of TransformStamped)."""
    try:
        from tf2_ros import TransformBroadcaster
    except ImportError:
        return OwnBroadcaster(node)
    return TransformBroadcaster(node)


def make_rigid_reader() -> Callable[[Any], Float64Array]:
    """geometry_msgs Transform or Pose -> (4, 4); raises MessageError for what is not rigid."""
    try:
        from tf_transformations import quaternion_matrix
    except ModuleNotFoundError:
        return rigid_from_msg
    except Exception as error:  # AttributeError: Ubuntu's transforms3d, beside pip's numpy 2
        log.warning("tf_transformations is installed but does not load, rotations are read without it: %s", error)
        return rigid_from_msg

    def read(msg: Any) -> Float64Array:
        T = rigid_from_msg(msg)  # refuses what is not finite or far from a unit quaternion
        q = msg.rotation if hasattr(msg, "rotation") else msg.orientation
        T[:3, :3] = quaternion_matrix((q.x, q.y, q.z, q.w))[:3, :3]
        return T

    return read
