"""Point the ROS wheels' exported CMake targets at this interpreter's headers: they name those of the machine that built them."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

BUILD_MACHINE = re.compile(r"/opt/python/[^/;\"]+/(lib/python[0-9.]+/site-packages/numpy/_core/include|include/python[0-9.]+)")


def local_path(match: re.Match[str]) -> str:
    return np.get_include() if "numpy" in match[1] else sysconfig.get_path("include")


for path in Path(sys.prefix, "share").glob("*/cmake/*.cmake"):
    text = path.read_text()
    fixed = BUILD_MACHINE.sub(local_path, text)
    if fixed != text:
        path.unlink()  # wheels may share a file with the installer's cache
        path.write_text(fixed)
