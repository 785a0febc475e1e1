"""Rooms of a second, simple generator as recordings: python scripts/foreign_rooms.py FOLDER, then `da3 eval recordings FOLDER/*`.

It shares no code with `da3_core.scenes`, which our networks learnt from: what they learnt there should hold here as well. Boxes, balls
and cylinders stand or float in a closed room under one lamp, all painted with photographs, checks, stripes or one colour; fine pictures
are not filtered, and a camera that comes close to what it looks at may turn away by much. Nothing is ever trained on these rooms, and
nothing in them is chosen for what a network makes of it; but what failed in them was a reason for the abstract rooms of `da3_core.scenes`.
Needs ray casting, and the photographs that come with scikit-image: `pip install trimesh embreex scikit-image`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import skimage.data
import trimesh
from tqdm import tqdm
from trimesh.ray.ray_pyembree import RayMeshIntersector

from da3_core import TumRgbdWriter
from da3_core.types import Float32Array, Float64Array, Uint8Array

FRAMES, MARGIN_M = 8, 0.25  # the margin that the camera keeps from everything
SHOWN = np.eye(3)[[[1, 2], [0, 2], [0, 1]]]  # the axes along which a face is painted that looks along x, y, z
PHOTOS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)


class Paint(NamedTuple):
    picture: Float32Array  # (h, w, 3) RGB, 0 to 1, repeated for ever
    texel_m: float
    offset: Float64Array  # (2,) texels
    sampling: tuple[int, int]  # interpolation and border mode

    def at(self, uv_m: Float64Array) -> Float32Array:
        """Colours (H, W, 3) at (H, W, 2)."""
        u, v = np.moveaxis(uv_m / self.texel_m + self.offset, -1, 0).astype(np.float32)
        return np.asarray(cv2.remap(self.picture, u, v, self.sampling[0], borderMode=self.sampling[1]), np.float32)


def draw_paint(rng: np.random.Generator) -> Paint:
    kind, offset = rng.choice(["photo", "photo", "plain", "checks", "stripes"]), rng.uniform(0, 1000, 2)
    if kind == "photo":
        file = cv2.imread(str(Path(skimage.data.__file__).parent / rng.choice(PHOTOS)))
        photo = np.ascontiguousarray(np.asarray(file)[..., ::-1] / 255, np.float32)
        return Paint(photo, rng.uniform(0.6, 2.5) / photo.shape[1], offset, (cv2.INTER_LINEAR, cv2.BORDER_REFLECT))
    a, b = rng.uniform(0.15, 0.95, (2, 3)) if rng.random() < 0.6 else rng.uniform(0.15, 0.95, (2, 1)).repeat(3, axis=1)
    picture = {"plain": [[a]], "checks": [[a, b], [b, a]], "stripes": [[a, b]]}[kind]
    return Paint(np.array(picture, np.float32), rng.uniform(0.08, 0.5), offset, (cv2.INTER_NEAREST, cv2.BORDER_WRAP))


def draw_solid(rng: np.random.Generator) -> trimesh.Trimesh:
    """A box, a ball or an upright cylinder around the origin."""
    kind = rng.choice(["low", "low", "tall", "ball", "cylinder"])
    solids: dict[str, trimesh.Trimesh] = {
        "low": trimesh.creation.box(rng.uniform((0.25, 0.25, 0.4), (1.2, 1.2, 1.9))),
        "tall": trimesh.creation.box(rng.uniform((0.2, 0.25, 1.0), (0.6, 1.2, 2.2))),
        "ball": trimesh.creation.icosphere(subdivisions=4, radius=rng.uniform(0.06, 0.25)),
        "cylinder": trimesh.creation.cylinder(radius=rng.uniform(0.04, 0.15), height=rng.uniform(0.5, 1.6), sections=64),
    }
    return solids[kind]


class Room:
    """Solids in a box from the world's origin to `size`, in metres; z is up."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.size = rng.uniform((3.5, 3.5, 2.3), (8, 8, 3.3))
        walls = trimesh.creation.box(bounds=(np.zeros(3), self.size))
        walls.invert()
        facing = np.abs(walls.face_normals).argmax(1)
        meshes, paint_of_face, uv_axes = [walls], [2 * facing + (walls.face_normals.sum(1) > 0)], [SHOWN[facing]]
        for i in range(rng.integers(6, 16)):
            solid, a = draw_solid(rng), rng.uniform(0, 2 * np.pi)
            R_world_solid = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
            half = solid.extents[2] / 2
            height = rng.uniform(half, self.size[2] - half) if rng.random() < 0.25 else half  # in the air or on the floor
            uv_axes.append(SHOWN[np.abs(solid.face_normals).argmax(1)] @ R_world_solid.T)
            paint_of_face.append(np.full(len(solid.faces), 6 + i))
            solid.vertices = solid.vertices @ R_world_solid.T + (*rng.uniform(0.3, self.size[:2] - 0.3), height)
            meshes.append(solid)
        self.bounds = np.stack([mesh.bounds for mesh in meshes[1:]])  # (solids, 2, 3)
        self.paint_of_face, self.uv_axes = np.concatenate(paint_of_face), np.concatenate(uv_axes)  # (faces,), (faces, 2, 3)
        self.paints = [draw_paint(rng) for _ in range(5 + len(meshes))]
        self.mesh = trimesh.Trimesh(*trimesh.util.append_faces([m.vertices for m in meshes], [m.faces for m in meshes]), process=False)
        self.rays = RayMeshIntersector(self.mesh)
        self.lamp = self.first_free(self.size * rng.uniform((0.2, 0.2, 0.8), (0.8, 0.8, 0.97), (1000, 3)), 0.05)
        self.ambient = rng.uniform(0.25, 0.6)

    def first_free(self, points: Float64Array, margin_m: float = MARGIN_M) -> Float64Array:
        """The first of points (N, 3) that keeps its distance from the walls and from the boxes around the solids."""
        in_room = np.all((points > margin_m) & (points < self.size - margin_m), axis=1)
        within = (points[:, None] > self.bounds[:, 0] - margin_m) & (points[:, None] < self.bounds[:, 1] + margin_m)
        return np.asarray(points[in_room & ~np.any(np.all(within, axis=2), axis=1)][0])

    def cast(self, origins: Float64Array, directions: Float64Array) -> tuple[npt.NDArray[np.int64], Float64Array]:
        """The face that each ray (H, W, 3) hits first, and how many of its directions away it is: inf where there is none."""
        rays = np.broadcast_to(origins, directions.shape).reshape(-1, 3), directions.reshape(-1, 3)
        face = self.rays.intersects_first(*rays).reshape(directions.shape[:-1])
        normal = self.mesh.face_normals[face]
        steps = ((self.mesh.triangles[face, 0] - origins) * normal).sum(-1) / (directions * normal).sum(-1)
        return face, np.where(face >= 0, steps, np.inf)

    def colours(self, eye: Float64Array, directions: Float64Array) -> Float64Array:
        """What is seen along rays (H, W, 3): RGB, 0 to 1."""
        face, steps = self.cast(eye, directions)
        points, normal = eye + np.where(face >= 0, steps, 1.0)[..., None] * directions, self.mesh.face_normals[face]
        uv_m, index = (self.uv_axes[face] @ points[..., None])[..., 0], self.paint_of_face[face]
        paint = np.zeros(points.shape)
        for i in np.unique(index):
            paint[index == i] = self.paints[i].at(uv_m)[index == i]
        to_lamp = self.lamp - points
        distance = np.linalg.norm(to_lamp, axis=-1)
        in_light = self.cast(points + 1e-4 * normal, to_lamp)[1] > 1
        light = np.maximum((normal * to_lamp).sum(-1) / distance, 0) * np.minimum(9 / (distance**2 + 3), 1.6) * np.where(in_light, 1, 0.15)
        return np.asarray(np.clip(paint * (self.ambient + 0.8 * light)[..., None], 0, 1))

    def walk(self, rng: np.random.Generator) -> list[Float64Array]:
        """T_world_cam of `FRAMES` steps, looking at a point that wanders."""
        eye = self.first_free(rng.uniform((0.4, 0.4, 0.5), self.size - (0.4, 0.4, 0.5), (1000, 3)))
        targets = rng.uniform((0, 0, 0.2), (*self.size[:2], 1.4), (1000, 3))
        target = targets[np.linalg.norm((targets - eye)[:, :2], axis=1) > 1.5][0]
        step_m, way, poses = rng.uniform(0.08, 0.5), rng.normal(size=3) * (1, 1, 0.3), []
        for _ in range(FRAMES):
            z = trimesh.unitize(target - eye)
            x = trimesh.unitize(np.cross(z, (0, 0, 1)))
            poses.append(np.vstack([np.column_stack([x, np.cross(z, x), z, eye]), (0, 0, 0, 1)]))
            blocked = np.linspace(0, 1, 101)[:, None]  # turn further and step shorter then, at last not at all
            ways = trimesh.unitize(trimesh.unitize(way) + rng.normal(size=(101, 3)) * (0.5, 0.5, 0.2) * (1 + 4 * blocked))
            before, eye = eye, self.first_free(eye + step_m * (1 - blocked) * ways)
            way = eye - before if (eye != before).any() else way
            target = target + rng.normal(size=3) * (0.25, 0.25, 0.1)
        return poses


def rays_of_pixels(T_world_cam: Float64Array, K: Float64Array, size: tuple[int, int], n: int) -> Float64Array:
    """World directions (H n, W n, 3) of z-depth 1 through n x n points of every pixel; in K the first pixel's centre is (0, 0)."""
    y, x = ((np.arange(length * n) + 0.5) / n - 0.5 for length in size)
    pixels = np.stack([*np.meshgrid(x, y), np.ones((len(y), len(x)))], axis=-1)
    return np.asarray(pixels @ np.linalg.inv(K).T @ T_world_cam[:3, :3].T)


def render(room: Room, T_world_cam: Float64Array, K: Float64Array, size: tuple[int, int]) -> tuple[Uint8Array, Float32Array]:
    """The image, of four rays a pixel, and the z-depth along the ray through the pixel's centre."""
    _, depth_m = room.cast(T_world_cam[:3, 3], rays_of_pixels(T_world_cam, K, size, 1))
    colours = room.colours(T_world_cam[:3, 3], rays_of_pixels(T_world_cam, K, size, 2))
    image = colours.reshape(size[0], 2, size[1], 2, 3).mean(axis=(1, 3))
    return (image * 255).round().astype(np.uint8), depth_m.astype(np.float32)


def write_room(folder: Path, rng: np.random.Generator, size: tuple[int, int]) -> None:
    """A walk through a new room as a recording of images (H, W); raises FileExistsError when the folder holds something."""
    room, focal_px = Room(rng), rng.uniform(0.6, 1.2) * size[1]
    K = np.array([[focal_px, 0, (size[1] - 1) / 2], [0, focal_px, (size[0] - 1) / 2], [0, 0, 1]])
    with TumRgbdWriter(folder) as writer:
        for k, T_world_cam in enumerate(room.walk(rng)):
            writer.write(k * 10**8, *render(room, T_world_cam, K, size), K, T_world_cam)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rooms", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(252, 336))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.folder.exists():
        parser.error(f"{args.folder} exists: name a new folder")
    for i in tqdm(range(args.rooms), unit="room"):
        write_room(args.folder / f"room-{i:03d}", np.random.default_rng((args.seed, i)), tuple(args.size))


if __name__ == "__main__":
    main()
