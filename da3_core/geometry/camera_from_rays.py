"""Camera pose and intrinsics from a predicted ray map: the homography from the identity camera's rays (paper section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from da3_core.geometry.pinhole import K_from_parameters, pixel_centres
from da3_core.geometry.ransac import draw_subsets
from da3_core.geometry.rigid import rigid_from_rt

DRAWS, DRAW_SIZE = 100, 8
CONFIDENT_SHARE = 0.3  # of the rays, from which the draws are taken
MAX_ERROR = 0.2  # of an inlier, on the plane at distance 1
MIN_Z = 1e-4


def camera_from_rays(
    rays: Tensor, confidence: Tensor, image_size: tuple[int, int], generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """T_world_cam (..., 4, 4) and K (..., 3, 3), in pixels of the (H, W) image, of ray maps.

    rays: (..., h, w, 6), direction then origin. confidence: (..., h, w), not negative. generator: of the draws, on the CPU.
    Computed in float64, given back in the type of `rays`; not differentiable.
    Raises ValueError when the directions of a view are not those of any pinhole camera, or anything is not finite.
    """
    if not bool(rays.isfinite().all() & confidence.isfinite().all()):
        raise ValueError("these rays or their confidences are not finite: predict them in float32, or take the camera decoder's cameras")
    *batch, h, w, _ = rays.shape
    directions, origins = rays.detach().double().reshape(-1, h * w, 6).chunk(2, -1)
    weights = confidence.detach().double().reshape(-1, h * w)
    pixels = _identity_rays(h, w, rays.device)
    homographies = [_homography_from_directions(pixels, d, c, generator) for d, c in zip(directions, weights, strict=True)]
    R, K = _rotation_and_intrinsics(torch.stack(homographies), image_size)
    centre = (weights.unsqueeze(-1) * origins).sum(-2) / weights.sum(-1, keepdim=True)
    T_world_cam = rigid_from_rt(R, centre)
    return T_world_cam.to(rays.dtype).reshape(*batch, 4, 4), K.to(rays.dtype).reshape(*batch, 3, 3)


def _identity_rays(h: int, w: int, device: torch.device) -> Tensor:
    """(h * w, 3): the image spans [-1, 1] x [-1, 1] at z = 1."""
    x, y = pixel_centres(h, w, device, torch.float64).reshape(-1, 2).unbind(-1)
    return torch.stack([2 * x / w - 1, 2 * y / h - 1, torch.ones_like(x)], -1)


def _homography_from_directions(pixels: Tensor, directions: Tensor, confidence: Tensor, generator: torch.Generator | None) -> Tensor:
    """H (3, 3) with directions ~ H pixels and a positive determinant, by RANSAC.

    pixels, directions: (P, 3). confidence: (P,). The directions are first turned to face +z, so that a view that looks
    sideways or back in the world is as well conditioned as the reference view.
    """
    R_facing = _rotation_to_face(directions, confidence)
    facing = directions @ R_facing.mT
    ahead = facing[:, 2] > MIN_Z
    targets = facing[:, :2] / facing[:, 2:].clamp(min=MIN_Z)
    weights = confidence * ahead

    most_confident = weights.argsort(descending=True, stable=True)[: max(DRAW_SIZE, int(CONFIDENT_SHARE * len(weights)))]
    draws = most_confident[draw_subsets(len(most_confident), DRAW_SIZE, DRAWS, generator).to(pixels.device)]
    candidates = _dlt(pixels[draws], targets[draws], weights[draws])  # (draws, 3, 3)
    inliers = _is_inlier(candidates, pixels, targets)  # (draws, P)
    best = inliers[(inliers.double() @ weights).argmax()]

    H = R_facing.mT @ _dlt(pixels, targets, weights * best)
    return H * torch.sign(torch.linalg.det(H))


def _rotation_to_face(directions: Tensor, confidence: Tensor) -> Tensor:
    """A rotation that takes the mean direction to +z."""
    z = torch.nn.functional.normalize((confidence.unsqueeze(-1) * directions).sum(0), dim=0)
    least_aligned = torch.eye(3, dtype=z.dtype, device=z.device)[z.abs().argmin()]
    x = torch.nn.functional.normalize(torch.linalg.cross(least_aligned, z), dim=0)
    return torch.stack([x, torch.linalg.cross(z, x), z])


def _dlt(points: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted direct linear transform: H (..., 3, 3) with (targets, 1) ~ H points; points (..., P, 3), targets (..., P, 2).

    The smallest right singular vector of the rows (p, 0, -u p), (0, p, -v p), each times the root of its weight,
    as the smallest eigenvector of their 9 x 9 normal matrix.
    """

    def moment(scale: Tensor) -> Tensor:
        return (points * scale.unsqueeze(-1)).mT @ points

    u, v = targets.unbind(-1)
    S, Su, Sv, Suv = moment(weights), moment(weights * u), moment(weights * v), moment(weights * (u * u + v * v))
    O = torch.zeros_like(S)
    rows = (torch.cat([S, O, -Su], -1), torch.cat([O, S, -Sv], -1), torch.cat([-Su, -Sv, Suv], -1))
    vectors: Tensor = torch.linalg.eigh(torch.cat(rows, -2)).eigenvectors
    return vectors[..., 0].reshape(*S.shape)


def _is_inlier(H: Tensor, points: Tensor, targets: Tensor) -> Tensor:
    """(D, P): points (P, 3) moved by H (D, 3, 3) come close to their targets (P, 2) on the plane z = 1. In float32, which is plenty."""
    moved = points.float() @ H.float().flatten(0, 1).mT  # (P, D * 3)
    x, y, z = moved.reshape(len(points), len(H), 3).permute(2, 1, 0).unbind()
    u, v = targets.float().unbind(-1)
    return (x - u * z).square_() + (y - v * z).square_() < (MAX_ERROR * z).square_()


def _rotation_and_intrinsics(H: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """R (..., 3, 3) and K (..., 3, 3) with H ~ R K'^-1, K' being K for an image that spans [-1, 1] x [-1, 1]."""
    Q, U = torch.linalg.qr(H)
    signs = torch.sign(U.diagonal(dim1=-2, dim2=-1))
    R, U = Q * signs.unsqueeze(-2), U * signs.unsqueeze(-1)
    U = U / U[..., 2:, 2:]
    focal = 1 / U.diagonal(dim1=-2, dim2=-1)[..., :2]
    if not bool((focal.isfinite() & (focal < 1 / MIN_Z)).all()):
        raise ValueError("these ray directions are not those of a pinhole camera: take the camera decoder's cameras instead")
    centre_y = -U[..., 1, 2] * focal[..., 1]
    centre_x = -(U[..., 0, 2] + U[..., 0, 1] * centre_y) * focal[..., 0]
    half_h, half_w = image_size[0] / 2, image_size[1] / 2
    K = K_from_parameters(focal[..., 0] * half_w, focal[..., 1] * half_h, (centre_x + 1) * half_w, (centre_y + 1) * half_h)
    return R, K
