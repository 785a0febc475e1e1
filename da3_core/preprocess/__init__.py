"""From a camera's image to the network's, and depth back: rectification to a centred pinhole, resizing, and the K that goes with it."""

from da3_core.preprocess.on_device import ToNetwork, make_to_network, on_host
from da3_core.preprocess.rectify import Rectifier, make_rectifier
from da3_core.preprocess.resize import Resize, Size, plan_cover, plan_resize

__all__ = ["Rectifier", "Resize", "Size", "ToNetwork", "make_rectifier", "make_to_network", "on_host", "plan_cover", "plan_resize"]
