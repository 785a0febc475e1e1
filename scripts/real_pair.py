"""A real stereo pair with measured depth as a recording: python scripts/real_pair.py FOLDER, then `da3 eval recordings FOLDER`.

Middlebury's Motorcycle (Scharstein et al. 2014), which scikit-image hands out in a quarter of its size: `pip install scikit-image pooch`.
Only the left image has depth. Not a benchmark, but no network of ours has ever seen a real image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from skimage.data import stereo_motorcycle

from da3_core import TumRgbdWriter

FOCAL_PX, CX_LEFT_PX, CY_PX, CX_APART_PX, BASELINE_M = 994.978, 311.193, 254.877, 31.086, 0.193001  # of the data set's calib.txt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    left, right, disparity_px = stereo_motorcycle()
    known = np.isfinite(disparity_px) & (disparity_px > 0)
    depth_m = np.where(known, FOCAL_PX * BASELINE_M / (np.where(known, disparity_px, 1.0) + CX_APART_PX), 0.0).astype(np.float32)
    # Both cameras get the left one's principal point: the right image loses columns on its left side, the left one on its right.
    cut = round(CX_APART_PX)
    left, right, depth_m = left[:, :-cut], right[:, cut:], depth_m[:, :-cut]
    K = np.array([[FOCAL_PX, 0, CX_LEFT_PX], [0, FOCAL_PX, CY_PX], [0, 0, 1]])
    T_left_right = np.eye(4)
    T_left_right[0, 3] = BASELINE_M
    with TumRgbdWriter(folder) as writer:
        writer.write(0, left, depth_m, K, np.eye(4))
        writer.write(10**8, right, np.zeros_like(depth_m), K, T_left_right)


if __name__ == "__main__":
    main()
