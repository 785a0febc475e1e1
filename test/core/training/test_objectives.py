"""Every objective learns a fixed batch, and says what it should of a perfect prediction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from da3_core.geometry.pinhole import unproject
from da3_core.geometry.rays import points_from_rays
from da3_core.geometry.rigid import invert_rigid, rotate
from da3_core.model import build_model, normalise_cameras
from da3_core.scenes.sample import Samples
from da3_core.training.anyview import AnyViewTraining, anyview_losses, truth_from_samples
from da3_core.training.config import LossConfig
from da3_core.training.data import Draw
from da3_core.training.gaussians import GaussianTraining, structural_similarity
from da3_core.training.gaussians import measure as measure_gaussians
from da3_core.training.labels import TeacherLabels
from da3_core.training.metric import MetricTraining, canonical_from_metres, rotate_samples
from da3_core.training.metric import measure as measure_metric
from da3_core.training.objective import Objective, given, ground_truth
from da3_core.training.teacher import TeacherTraining
from da3_core.types import Gaussians, Prediction

from .fixed_batch import ANY_VIEW, METRIC, WITH_GAUSSIANS, fixed_draw, fixed_samples, values_over_steps


def network(config: object, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model(config).train()  # type: ignore[arg-type]


def anyview(loss: LossConfig) -> Objective:
    return AnyViewTraining(network(ANY_VIEW), loss, bf16=False, labels=ground_truth)


def teacher(loss: LossConfig) -> Objective:
    return TeacherTraining(network(METRIC), loss, bf16=False, labels=ground_truth, objects=True)  # type: ignore[arg-type]


def mono(loss: LossConfig) -> Objective:
    labels = TeacherLabels(network(METRIC, seed=1), bf16=False, aligned=False)  # type: ignore[arg-type]
    return TeacherTraining(network(METRIC), loss, bf16=False, labels=labels, objects=False)  # type: ignore[arg-type]


def metric(loss: LossConfig) -> Objective:
    return MetricTraining(network(METRIC), loss, bf16=False, labels=ground_truth)  # type: ignore[arg-type]


def losses_over_steps(objective: Objective, steps: int, posed: bool) -> list[float]:
    samples = fixed_samples()
    draw = fixed_draw(samples, chances=(0.0 if posed else 0.9, 0.9))
    return values_over_steps(objective, samples, draw, steps, 3e-3)


@pytest.mark.parametrize(
    ("make", "posed"),
    [(anyview, False), (anyview, True), (teacher, False), (mono, False), (metric, False)],
    ids=lambda x: str(getattr(x, "__name__", x)),
)
def test_the_loss_of_a_fixed_batch_falls(make: object, posed: bool) -> None:
    found = losses_over_steps(make(LossConfig(metric_rotation=0.0)), 12, posed)  # type: ignore[operator]
    assert min(found[-3:]) < 0.85 * found[0]


def perfect_prediction(samples: object) -> Prediction:
    truth = truth_from_samples(samples, (16, 24))  # type: ignore[arg-type]
    ones = torch.ones_like
    return Prediction(
        depth=truth.depth,
        confidence=ones(truth.depth),
        rays=truth.rays,
        ray_confidence=ones(truth.rays[..., 0]),
        camera_encoding=truth.camera * torch.tensor([1.0, 1, 1, -1, -1, -1, -1, 1, 1]),
        T_cam_world=invert_rigid(samples.T_world_cam),  # type: ignore[attr-defined]
    )


@pytest.mark.parametrize("distance", ["linear", "relative"])
def test_a_perfect_prediction_has_no_loss(distance: str) -> None:
    samples = fixed_samples()
    parts = anyview_losses(perfect_prediction(samples), truth_from_samples(samples, (16, 24)), LossConfig(distance=distance))
    for value in parts.values():
        assert value.abs().max() < 1e-5


def test_only_scenes_beyond_the_limit_weigh_less() -> None:
    samples = fixed_samples()
    truth = truth_from_samples(samples, (16, 24))
    lost = perfect_prediction(samples)
    far = torch.tensor([0.0, 2.0]).view(2, 1, 1) * given(lost.camera_encoding)
    lost = dataclasses.replace(
        lost,
        rays=lost.rays + torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1),
        depth=1.1 * truth.depth,
        camera_encoding=given(lost.camera_encoding) + far,
    )
    plain, limited = (anyview_losses(lost, truth, LossConfig(scene_limit=limit)) for limit in (0.0, 0.5))
    for name in ("rays", "points", "camera", "baselines"):
        assert limited[name][0] == plain[name][0] and 0.5 < limited[name][1] < 0.8 * plain[name][1], name
    assert limited["depth"].equal(plain["depth"])
    weights = {"depth": 1.0, "rays": 1.0, "points": 1.0, "camera": 1.0, "gradient": 1.0}
    torch.testing.assert_close(limited["loss"], sum(w * limited[name] for name, w in weights.items()))


def test_the_any_view_loss_weighs_its_terms() -> None:
    samples = fixed_samples()
    truth = truth_from_samples(samples, (16, 24))
    x = torch.linspace(0.5, 1.5, 42)
    wrong = perfect_prediction(samples)
    wrong = dataclasses.replace(wrong, depth=truth.depth * x, rays=wrong.rays + 0.1, camera_encoding=1.2 * given(wrong.camera_encoding))
    parts = anyview_losses(wrong, truth, LossConfig(alpha=0.3, beta=0.7, rays=0.2, points=0.4, baselines=0.6))
    terms = {"depth": 1.0, "gradient": 0.3, "camera": 0.7, "rays": 0.2, "points": 0.4, "baselines": 0.6}
    assert all((parts[name] > 0.01).all() for name in terms)
    torch.testing.assert_close(parts["loss"], sum(weight * parts[name] for name, weight in terms.items()))


@pytest.mark.parametrize("posed", [True, False])
@pytest.mark.parametrize("n", [1, 2])
def test_an_any_view_batch_says_nothing_of_what_it_has_not(n: int, posed: bool) -> None:
    weights = {"matching": 0.2, "given_cameras": 0.3, "baselines": 0.6}
    objective, samples = anyview(LossConfig(**weights, pose_conditioning=0.5)), fixed_samples(n=n)  # type: ignore[arg-type]
    values = objective(samples, fixed_draw(samples, chances=(0.0 if posed else 0.9, 0.9)))
    assert weights.keys() & values.keys() == ({"matching", "baselines"} if n > 1 else set()) | ({"given_cameras"} if posed else set())
    terms = weights | {"depth": 1.0, "rays": 1.0, "points": 1.0, "camera": 1.0, "gradient": 1.0}
    torch.testing.assert_close(values["loss"], sum(weight * values[name] for name, weight in terms.items() if name in values))


@pytest.mark.parametrize("objects", [True, False])
def test_the_teachers_loss_is_equation_7(objects: bool) -> None:
    objective = teacher(LossConfig(teacher_gradient=0.3))
    if not objects:
        objective.object_output = None  # type: ignore[assignment]
    samples = fixed_samples()
    values = objective(samples, fixed_draw(samples))
    terms = {"gradient": 0.3, "global_local": 1.0, "normal": 1.0, "sky": 1.0} | ({"object": 1.0} if objects else {})
    assert set(values) == {*terms, "loss", "absrel", "delta1"}
    assert all(values[name] > 0.01 for name in terms)
    torch.testing.assert_close(values["loss"], sum(weight * values[name] for name, weight in terms.items()))


@pytest.mark.parametrize(("distance", "depth"), [("linear", 0.5), ("relative", 0.5 * math.log(3 / 2))])
def test_the_metric_loss_by_hand(distance: str, depth: float) -> None:
    """4 m seen with a focal length of 600 are 2 canonical ones; every other column says 3, and a sky of a half where there is none."""
    samples = fixed_samples(h=28, w=42)
    samples.K[..., :2, :2] = 600 * torch.eye(2)
    sky = torch.zeros_like(samples.sky)
    samples = dataclasses.replace(samples, depth_m=torch.full_like(samples.depth_m, 4.0), valid=~sky, sky=sky)
    predicted = 2 + (torch.arange(42) % 2).expand(samples.sky.shape)
    half, known = torch.full(samples.sky.shape, 0.5), torch.ones(2, 2, dtype=torch.bool)
    values = measure_metric(predicted, half, samples, known, LossConfig(teacher_gradient=0.3, distance=distance))
    found = [values[name].item() for name in ("depth", "gradient", "sky", "loss", "absrel")]
    assert found == pytest.approx([depth, 2 * depth, 0.25, depth + 0.3 * 2 * depth + 0.25, 0.25])


@pytest.mark.parametrize(("chances", "quarters"), [((0.04, 0.4), 1), ((0.04, 0.6), 3), ((0.06, 0.4), 0)])
def test_a_twentieth_of_the_metric_networks_images_is_rotated(chances: tuple[float, float], quarters: int) -> None:
    """Its teacher sees all of them upright."""
    objective, samples = metric(LossConfig()), fixed_samples()
    seen: list[Samples] = []

    def labels(samples: Samples, draw: Draw) -> tuple[Samples, Tensor]:
        seen.append(samples)
        return ground_truth(samples, draw)

    objective.labels = labels  # type: ignore[assignment]
    values = objective(samples, fixed_draw(samples, chances=chances))
    turned = rotate_samples(samples, quarters)
    assert seen[0] is samples
    again = objective(turned, fixed_draw(turned, chances=(0.9, 0.9)))
    assert values["loss"].item() == pytest.approx(again["loss"].item())


def test_the_truth_is_in_the_first_views_frame_and_of_unit_size() -> None:
    samples = fixed_samples(h=28, w=28)
    truth = truth_from_samples(samples, (28, 28))
    world = (
        rotate(samples.T_world_cam[..., None, None, :3, :3], unproject(samples.depth_m, samples.K))
        + samples.T_world_cam[..., None, None, :3, 3]
    )
    T_ref_world = invert_rigid(samples.T_world_cam[:, :1])
    in_reference = rotate(T_ref_world[..., None, None, :3, :3], world) + T_ref_world[..., None, None, :3, 3]
    for b in range(2):
        distances = in_reference[b][samples.valid[b]].norm(dim=-1)
        expected = in_reference[b] / distances.mean()
        torch.testing.assert_close(truth.points[b][samples.valid[b]], expected[samples.valid[b]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(points_from_rays(truth.rays, truth.depth), truth.points)
    assert truth.camera[:, 0, :3].abs().max() < 1e-6
    torch.testing.assert_close(truth.camera[:, 0, 3:7], torch.tensor([0.0, 0, 0, 1]).expand(2, 4))


def test_relative_distance_weighs_far_and_near_alike() -> None:
    """A depth 10 % too large costs the same wherever it is."""
    samples = fixed_samples()
    truth = truth_from_samples(samples, (16, 24))
    prediction = dataclasses.replace(perfect_prediction(samples), depth=1.1 * truth.depth)
    loss = anyview_losses(prediction, truth, LossConfig(distance="relative"))
    torch.testing.assert_close(loss["depth"], torch.full((2,), 1.1).log())
    assert loss["gradient"].max() < 1e-5


def test_posed_steps_see_the_cameras_and_others_do_not() -> None:
    objective = anyview(LossConfig(pose_conditioning=0.5))
    samples = fixed_samples()
    moved = dataclasses.replace(samples, T_world_cam=fixed_samples(seed=1).T_world_cam)
    for posed in (False, True):
        a, b = (objective.predict(s, posed).depth for s in (samples, moved))  # type: ignore[operator]
        assert torch.equal(a, b) != posed


class Exact(torch.nn.Module):
    """A teacher that is right about the samples up to scale and shift, and sure of a larger sky."""

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self.samples = samples

    def depth_and_sky(self, images: Tensor) -> tuple[Tensor, Tensor]:
        sky = torch.zeros_like(self.samples.depth_m)
        sky[..., :8, :] = 1
        return 0.2 * torch.where(self.samples.valid, self.samples.depth_m, 9) + 3, sky


def test_teacher_labels_are_aligned_to_what_was_measured() -> None:
    samples = fixed_samples()
    sparse = samples.valid & (torch.rand(samples.valid.shape, generator=torch.Generator().manual_seed(0)) < 0.3)
    measured = dataclasses.replace(samples, depth_m=torch.where(sparse, samples.depth_m, 0), valid=sparse)
    labels = TeacherLabels(Exact(samples), bf16=False, aligned=True, from_step=5, ground_truth=0.5)  # type: ignore[arg-type]
    assert labels(measured, fixed_draw(samples, step=4))[0] is measured
    assert torch.equal(labels(measured, fixed_draw(samples, step=5, scene_chance=0.1))[0].depth_m, measured.depth_m)
    labelled, _ = labels(measured, fixed_draw(samples, step=5))
    dense = samples.valid.clone()
    dense[..., :8, :] = False
    assert torch.equal(labelled.valid, dense)
    torch.testing.assert_close(labelled.depth_m[dense], samples.depth_m[dense], rtol=1e-4, atol=1e-4)


def test_a_view_without_measurements_keeps_them() -> None:
    samples = fixed_samples()
    valid = samples.valid.clone()
    valid[0, 0] = False
    labels = TeacherLabels(network(METRIC), bf16=False, aligned=True)  # type: ignore[arg-type]
    labelled, _ = labels(dataclasses.replace(samples, valid=valid), fixed_draw(samples))
    assert not labelled.valid[0, 0].any()
    assert labelled.depth_m.isfinite().all()


def recorded(samples: Samples) -> Samples:
    """What is known of the samples where they are recorded."""
    nothing = torch.zeros_like(samples.sky)
    return dataclasses.replace(samples, sky=nothing, object=nothing, kind=torch.full_like(samples.kind, -1))


@pytest.mark.parametrize("make", [teacher, metric])
def test_recordings_teach_no_masks_and_are_not_asked_for_them(make: Callable[[LossConfig], Objective]) -> None:
    objective, samples = make(LossConfig()), fixed_samples()
    draw = fixed_draw(samples)
    objective(recorded(samples), draw)["loss"].backward()
    outputs = [objective.network.head.sky_output, *filter(None, [getattr(objective, "object_output", None)])]  # type: ignore[union-attr]
    assert all(p.grad is not None and not p.grad.any() for output in outputs for p in output.parameters())  # type: ignore[union-attr]
    assert "sky_iou" in objective.validate(samples, draw)
    assert {"absrel", "delta1"} == set(objective.validate(recorded(samples), draw))


@pytest.mark.parametrize("make", [teacher, metric])
def test_a_teacher_knows_the_sky_of_recordings_and_no_objects(make: Callable[[LossConfig], Objective]) -> None:
    rendered = fixed_samples()
    labels = TeacherLabels(Exact(rendered), bf16=False, aligned=True, from_step=5, ground_truth=0.5)  # type: ignore[arg-type]
    objective = make(LossConfig())
    objective.labels = labels  # type: ignore[assignment]
    for step, chance, taught in ((4, 0.9, False), (5, 0.1, False), (5, 0.9, True)):
        draw = fixed_draw(rendered, step=step, scene_chance=chance)
        values = objective(recorded(rendered), draw)
        assert (values["sky"] > 0) == taught and values.get("object", 0) == 0
        assert objective(rendered, draw)["sky"] > 0


def test_a_teacher_says_no_sky_of_a_view_that_it_cannot_be_aligned_to() -> None:
    samples = recorded(fixed_samples())
    samples.valid[0, 0] = False
    labels = TeacherLabels(Exact(fixed_samples()), bf16=False, aligned=True)  # type: ignore[arg-type]
    assert labels(samples, fixed_draw(samples))[1].tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_cameras_see_the_same_world(quarters: int) -> None:
    samples = fixed_samples()
    samples.K[..., 0, 0] *= 1.3
    samples.K[..., 0, 2] += 2.5
    turned = rotate_samples(samples, quarters)
    points = []
    for s in (samples, turned):
        local = unproject(s.depth_m, s.K)
        points.append(rotate(s.T_world_cam[..., None, None, :3, :3], local) + s.T_world_cam[..., None, None, :3, 3])
    torch.testing.assert_close(points[1], points[0].rot90(quarters, (2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        canonical_from_metres(turned.depth_m, turned.K), canonical_from_metres(samples.depth_m, samples.K).rot90(quarters, (2, 3))
    )


def test_canonical_depth_by_hand() -> None:
    K = torch.diag(torch.tensor([500.0, 700.0, 1.0]))
    assert canonical_from_metres(torch.full((2, 2), 4.0), K)[0, 0].item() == pytest.approx(4.0 * 300 / 600)


def splat(gaussians: Gaussians, T_cam_world: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A rasteriser for a few hundred Gaussians: round, without occlusion, one blend over all."""
    H, W = size
    p = rotate(T_cam_world[:, :, None, :3, :3], gaussians.mean[:, None]) + T_cam_world[:, :, None, :3, 3]  # (B, N, G, 3)
    z = p[..., 2].clamp(min=0.05)
    pixel = p[..., :2] / z.unsqueeze(-1) * K[:, :, None, 0, 0, None] + K[:, :, None, :2, 2]
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    offset = torch.stack([x, y], -1).reshape(-1, 1, 2) - pixel.unsqueeze(2)  # (B, N, HW, G, 2)
    weight = gaussians.opacity[:, None, None] * torch.exp(-0.5 * offset.square().sum(-1)) + 1e-6
    weight = weight / weight.sum(-1, keepdim=True)
    colour = (0.5 + 0.28209 * gaussians.sh[..., 0]).unsqueeze(1)  # (B, 1, G, 3)
    image, depth = weight @ colour, weight @ z.unsqueeze(-1)
    return image.movedim(-1, -2).unflatten(-1, (H, W)), depth.squeeze(-1).unflatten(-1, (H, W))


def test_the_gaussian_head_learns_and_the_rest_does_not() -> None:
    net = network(WITH_GAUSSIANS)
    objective = GaussianTraining(net, LossConfig(), bf16=False, labels=ground_truth, rasterise=splat)  # type: ignore[arg-type]
    before = {name: p.clone() for name, p in net.named_parameters()}
    samples = fixed_samples(b=1, h=28, w=28)
    found = values_over_steps(objective, samples, fixed_draw(samples), 6, 1e-2)
    assert found[-1] < 0.95 * found[0]
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith("gaussian_head.") for name in moved)


def test_gaussians_come_from_normalised_cameras_and_are_rendered_in_the_unit_of_their_depth() -> None:
    """Metres or not, and how many views there are beside those that the Gaussians are made from, is nothing to the network."""
    net, samples = network(WITH_GAUSSIANS), fixed_samples(n=4)
    seen: dict[str, Tensor] = {}
    net.camera_encoder.register_forward_pre_hook(lambda module, args: seen.update(given=args[0]))  # type: ignore[operator,union-attr]
    net.head.register_forward_hook(lambda module, args, maps: seen.update(depth=maps.depth))  # type: ignore[operator,union-attr]

    def rasterise(gaussians: Gaussians, T_cam_world: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        seen["rendered"] = T_cam_world
        return splat(gaussians, T_cam_world, K, size)

    GaussianTraining(net, LossConfig(), bf16=False, labels=ground_truth, rasterise=rasterise)(samples, fixed_draw(samples))  # type: ignore[arg-type]
    T_cam_world = invert_rigid(samples.T_world_cam)
    torch.testing.assert_close(seen["given"], normalise_cameras(T_cam_world[:, ::2]))
    ratio = torch.where(samples.valid[:, ::2], samples.depth_m[:, ::2] / seen["depth"], torch.nan)
    unit_m = ratio.flatten(1).nanmedian(1).values[:, None, None]
    in_metres = torch.cat([seen["rendered"][..., :3, :3], seen["rendered"][..., :3, 3:] * unit_m[..., None]], -1)
    expected = (T_cam_world @ samples.T_world_cam[:, :1])[..., :3, :]
    torch.testing.assert_close(in_metres, expected, rtol=0.03, atol=1e-5)


def taught_gaussians(loss: LossConfig) -> Objective:
    return GaussianTraining(network(WITH_GAUSSIANS), loss, bf16=False, labels=ground_truth, rasterise=splat)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [anyview, teacher, metric, taught_gaussians])
def test_depth_is_learned_from_the_labels(make: Callable[[LossConfig], Objective]) -> None:
    measured, labelled = fixed_samples(b=1), fixed_samples(b=1, seed=1)
    labelled = dataclasses.replace(measured, depth_m=labelled.depth_m)
    objective, draw = make(LossConfig()), fixed_draw(measured)
    unlike, wanted = (objective(samples, draw)["loss"].item() for samples in (measured, labelled))
    objective.labels = lambda samples, draw: (labelled, ground_truth(labelled, draw)[1])  # type: ignore[assignment]
    found = objective(measured, draw)["loss"].item()
    assert found == pytest.approx(wanted) and found != pytest.approx(unlike, rel=1e-3)


def test_the_gaussians_loss_weighs_its_terms() -> None:
    samples, context = fixed_samples(n=4), slice(0, None, 2)
    image, depth = samples.images.flip(-1), samples.depth_m.flip(-1) + 0.1
    values = measure_gaussians(image, depth, context, samples, LossConfig(photometric_ssim=0.3, gaussian_depth=0.7))
    terms = {"colour": 1.0, "structure": 0.3, "depth": 0.7}
    assert all(values[name] > 0.01 for name in terms)
    torch.testing.assert_close(values["loss"], sum(weight * values[name] for name, weight in terms.items()))
    torch.testing.assert_close(values["colour"], (image - samples.images).square().mean())
    torch.testing.assert_close(values["structure"], 1 - structural_similarity(image, samples.images).mean())
    perfect = measure_gaussians(samples.images, 0.5 * samples.depth_m + 3, context, samples, LossConfig())
    assert perfect["loss"] < 1e-5


def test_without_a_rasteriser_the_reason_is_given() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((ImportError, ValueError), match="gsplat"):
        GaussianTraining(network(WITH_GAUSSIANS), LossConfig(), bf16=False, labels=ground_truth)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no Gaussian head"):
        GaussianTraining(network(ANY_VIEW), LossConfig(), bf16=False, labels=ground_truth, rasterise=splat)  # type: ignore[arg-type]


def test_structural_similarity_knows_equal_images_and_noise() -> None:
    image = fixed_samples().images
    assert structural_similarity(image, image).tolist() == pytest.approx([1, 1])
    noisy = image + 0.3 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    assert structural_similarity(image, noisy).max() < 0.7
