"""From a camera's image to the network's, and depth back: rectification to a centred pinhole, resizing, and the K that goes with it."""

from da3_core.preprocess.rectify import Rectifier, make_rectifier
from da3_core.preprocess.resize import Resize, Size, plan_cover, plan_resize

__all__ = ["Rectifier", "Resize", "Size", "make_rectifier", "plan_cover", "plan_resize"]
