"""From a camera's image to the network's, and depth back: rectification to a centred pinhole, resizing, and the K that goes with it."""

from da3_core.preprocess.measured import DepthRectifier
from da3_core.preprocess.network_image import NetworkImage, ToNetwork, make_to_network
from da3_core.preprocess.rectify import Rectifier, make_rectifier
from da3_core.preprocess.resize import Resize, Size, plan_cover, plan_resize

__all__ = [
    "DepthRectifier",
    "NetworkImage",
    "Rectifier",
    "Resize",
    "Size",
    "ToNetwork",
    "make_rectifier",
    "make_to_network",
    "plan_cover",
    "plan_resize",
]
