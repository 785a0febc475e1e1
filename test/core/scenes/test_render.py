import dataclasses
import math

import numpy as np
import pytest
import torch

from da3_core.scenes import KINDS, make_worlds, render, render_rays, sample_cameras
from da3_core.scenes.lens import lens_directions
from da3_core.scenes.primitives import BOX, Solids, pick
from da3_core.scenes.render import _at_once, pinhole_directions
from da3_core.scenes.vec import look_rotation
from da3_core.scenes.worlds import SOLIDS, select

SIZE = (56, 72)


@pytest.fixture(scope="module")
def scenes():
    """A world of every kind seen from two cameras each: (worlds, T_world_cam, K, rendering)."""
    worlds = make_worlds(torch.arange(11, 11 + len(KINDS)), KINDS)
    T, K = sample_cameras(worlds, 2, SIZE, "hand")
    return worlds, T, K, render(worlds, T, K, SIZE)


def camera_at(position, forward):
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = look_rotation(torch.tensor(forward), torch.tensor(0.0)), torch.tensor(position)
    return T[None, None]


def intrinsics(focal, size):
    return torch.tensor([[[[focal, 0.0, size[1] / 2], [0.0, focal, size[0] / 2], [0.0, 0.0, 1.0]]]])


def world_of_one_box(half, centre):
    world = make_worlds(torch.tensor([1]), "outdoor")
    far = torch.tensor([0.0, 0.0, -1e4]).expand(1, SOLIDS, 3).clone()
    small = torch.full((1, SOLIDS, 3), 1e-2)
    far[0, 5], small[0, 5] = torch.tensor(centre), torch.tensor(half)
    solids = Solids(far, torch.eye(3).expand(1, SOLIDS, 3, 3), small, torch.tensor(BOX).expand(1, SOLIDS, 3))
    return dataclasses.replace(world, solids=solids)


def test_one_box_face_on():
    """A face 4 m away fills exactly the pixels that its corners span, at constant depth; the rest is sky."""
    world = world_of_one_box((0.5, 1.0, 0.55), (4.5, 0.0, 0.0))
    seen = render(world, camera_at((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)), intrinsics(20.0, (20, 30)), (20, 30))
    inside = torch.zeros(20, 30, dtype=torch.bool)
    inside[10 - 3 : 10 + 3, 15 - 5 : 15 + 5] = True  # 20 px / 4 m: 2.75 px up and down, 5 aside
    assert torch.equal(torch.isfinite(seen.depth[0, 0]), inside)
    assert torch.allclose(seen.depth[0, 0][inside], torch.tensor(4.0))
    assert torch.equal(seen.sky[0, 0], ~inside)
    assert torch.allclose(seen.normal[0, 0][:, inside], torch.tensor([[-1.0], [0.0], [0.0]]).expand(3, 60))


def test_image_axes_are_right_and_down():
    """What lies to the camera's right and below appears right and below."""
    world = world_of_one_box((0.5, 0.3, 0.3), (5.0, -1.0, -0.6))
    seen = render(world, camera_at((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)), intrinsics(20.0, (20, 30)), (20, 30))
    rows, columns = torch.nonzero(torch.isfinite(seen.depth[0, 0]), as_tuple=True)
    assert len(rows) and rows.float().mean() > 11 and columns.float().mean() > 17


def test_sky_is_where_nothing_is(scenes):
    worlds, _, _, seen = scenes
    missed = torch.isinf(seen.depth)
    assert torch.equal(seen.sky, missed & worlds.sky.is_sky[:, None, None, None])
    assert (seen.normal.norm(dim=2)[missed] == 0).all()
    assert torch.isfinite(seen.radiance).all() and (seen.radiance >= 0).all()
    assert (seen.depth > 0).all() and not torch.isnan(seen.depth).any()
    assert seen.object.flatten(1).any(1).tolist() == [kind == "object" for kind in KINDS] and not (seen.object & missed).any()


def test_points_of_one_view_lie_on_the_other_views_surfaces(scenes):
    """A point seen from camera 0 is never in front of what camera 1 sees there, and mostly exactly on it."""
    worlds, T, K, seen = scenes
    rays = pinhole_directions(K, SIZE)
    points = T[:, 0, None, None, :3, 3] + torch.einsum("bij,bjhw->bhwi", T[:, 0, :3, :3], rays[:, 0] * seen.depth[:, :1])
    local = torch.einsum("bhwi,bij->bhwj", points - T[:, 1, None, None, :3, 3], T[:, 1, :3, :3])
    direction = (local / local[..., 2:]).permute(0, 3, 1, 2)
    back = render_rays(worlds, T[:, 1:], direction[:, None].nan_to_num(0.0, 0.0, 0.0), K[:, 1:, 0, 0])
    usable = torch.isfinite(seen.depth[:, 0]) & (local[..., 2] > 0.05)
    ratio = (back.depth[:, 0] / local[..., 2])[usable]
    assert usable.float().mean() > 0.4
    assert (ratio < 1.0 + 1e-3).float().mean() > 0.999
    assert ((ratio - 1).abs() < 1e-3).float().mean() > 0.5


def test_normals_agree_with_the_depths_gradient(scenes):
    _, T, K, seen = scenes
    rays = pinhole_directions(K, SIZE)
    points = torch.einsum("bnij,bnjhw->bnihw", T[..., :3, :3], rays * seen.depth[:, :, None])
    right, down = points[..., 1:-1, 2:] - points[..., 1:-1, :-2], points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    numeric = torch.nn.functional.normalize(torch.linalg.cross(down, right, dim=2), dim=2)
    normal = seen.normal[..., 1:-1, 1:-1]
    flat = (seen.normal[..., 1:-1, 2:] * seen.normal[..., 1:-1, :-2]).sum(2).gt(0.999) & (
        (seen.normal[..., 2:, 1:-1] * seen.normal[..., :-2, 1:-1]).sum(2) > 0.999
    )
    agreement = (numeric * normal).sum(2)[flat & torch.isfinite(points[..., 1:-1, 1:-1]).all(2)]
    assert len(agreement) > 5000
    assert (agreement > 0.99).float().mean() > 0.9  # the rest are depth steps between parallel faces
    facing = (seen.normal * torch.einsum("bnij,bnjhw->bnihw", T[..., :3, :3], rays)).sum(2)
    assert (facing < 1e-3).all()


def test_culled_tiles_give_what_all_solids_give(scenes):
    worlds, T, K, seen = scenes
    image, solid = _at_once(worlds, T, pinhole_directions(K, SIZE), 1.0 / K[..., 0, 0], lambda step: step)
    radiance, depth, normal = image[:, :, :3], image[:, :, 3], image[:, :, 4:]
    assert torch.equal(torch.isinf(depth), torch.isinf(seen.depth))
    met = torch.isfinite(depth)
    assert torch.allclose(depth[met], seen.depth[met], rtol=1e-5)
    assert ((radiance - seen.radiance).abs() > 1e-3 + 1e-3 * radiance).float().mean() < 1e-4
    assert torch.allclose(normal, seen.normal, atol=1e-4)
    assert torch.equal(met & pick(worlds.is_object, solid), seen.object)


def test_as_many_images_are_one_shape_however_many_views_a_world_has(scenes):
    worlds, T, K, _ = scenes

    def shapes_of(tree):
        if isinstance(tree, torch.Tensor):
            return [tuple(tree.shape)]
        if dataclasses.is_dataclass(tree):
            tree = tuple(getattr(tree, field.name) for field in dataclasses.fields(tree))
        return [shape for part in tree for shape in shapes_of(part)] if isinstance(tree, tuple) else []

    def shapes(worlds, T, K):
        found = []

        def build(step):
            return lambda *arguments: (found.append((step, shapes_of(arguments))), step(*arguments))[1]

        _at_once(worlds, T, pinhole_directions(K, SIZE), 1.0 / K[..., 0, 0], build)
        return found

    two = torch.tensor([0, 1])
    assert shapes(select(worlds, two), T[:2, :1], K[:2, :1]) == shapes(select(worlds, two[:1]), T[:1, :2], K[:1, :2])


def test_what_is_compiled_is_graphs_without_breaks(scenes):
    worlds, T, K, seen = scenes

    def graph(step):
        return torch.compile(step, backend="eager", fullgraph=True, dynamic=False)

    image, _ = _at_once(worlds, T[:, :1], pinhole_directions(K, SIZE)[:, :1], 1.0 / K[:, :1, 0, 0], graph)
    assert torch.allclose(image[:, :, 3], seen.depth[:, :1], rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiling the renderer for a CPU takes many minutes")
def test_the_compiled_program_gives_the_same_image(scenes):
    worlds, T, K, seen = scenes
    compiled = render(worlds, T, K, SIZE, compiled=True)
    assert ((compiled.depth - seen.depth).abs() > 1e-4 * seen.depth).float().mean() < 1e-4
    assert ((compiled.radiance - seen.radiance).abs() > 1e-2).float().mean() < 1e-3


def test_a_lens_moves_pixels_but_not_the_world():
    """A point's depth through a distorted lens is the pinhole's at the pixel where OpenCV's forward model puts it."""
    cv2 = pytest.importorskip("cv2")
    K = np.array([[40.0, 0.0, 36.0], [0.0, 40.0, 28.0], [0.0, 0.0, 1.0]])
    D = (-0.25, 0.08, 0.001, -0.002, 0.0)
    rays = lens_directions(K, "plumb_bob", D, SIZE)
    points = rays.permute(1, 2, 0).reshape(-1, 1, 3).double().numpy()
    projected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(D))
    v, u = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5, indexing="ij")
    assert np.abs(projected[:, 0] - np.stack((u, v), -1).reshape(-1, 2)).max() < 1e-3


@pytest.mark.parametrize(
    ("model", "D"),
    [("equidistant", (0.02, -0.01, 0.002, 0.0)), ("none", ()), ("rational_polynomial", (-0.3, 0.1, 0.0, 0.0, 0.0, 0.02, 0.0, 0.0))],
)
def test_other_lenses_start_at_the_centre(model, D):
    K = np.array([[40.0, 0.0, 36.5], [0.0, 40.0, 28.5], [0.0, 0.0, 1.0]])
    rays = lens_directions(K, model, D, SIZE)
    assert torch.allclose(rays[:, 28, 36], torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
    if model == "equidistant":
        theta = math.atan(float(rays[0, 28, 71]))
        assert math.isclose(theta * (1 + 0.02 * theta**2 - 0.01 * theta**4 + 0.002 * theta**6), 35 / 40, rel_tol=1e-4)


def test_an_unknown_lens_is_refused():
    with pytest.raises(ValueError, match="plumb_bob"):
        lens_directions(np.eye(3), "thin_prism", (), SIZE)  # type: ignore[arg-type]
