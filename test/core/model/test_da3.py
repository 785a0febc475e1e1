import pytest
import torch

from da3_core.geometry.pinhole import K_from_parameters
from da3_core.geometry.rays import rays_from_cameras
from da3_core.geometry.rigid import invert_rigid, rigid_from_rt, rotation_from_quaternion
from da3_core.model import build_model
from da3_core.model.dual_dpt import DenseMaps

H, W = 42, 56
TRAINING = frozenset({"depth", "rays", "cameras"})
UNUSED = tuple(f"head.{part}.{level}" for part in ("ray_necks", "ray_outputs") for level in range(3))


@pytest.fixture
def model(any_view_config):
    torch.manual_seed(0)
    return build_model(any_view_config)


@pytest.fixture
def cameras():
    R = rotation_from_quaternion(torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0)))
    T_world_cam = rigid_from_rt(R, torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1)))
    return T_world_cam, K_from_parameters(*(torch.full((1, 4), v) for v in (50.0, 45.0, W / 2, H / 2)))


def modules_that_ran(model, *args, **kwargs):
    ran = set()
    hooks = [m.register_forward_hook(lambda m, i, o, name=name: ran.add(name)) for name, m in model.named_modules() if name]
    prediction = model(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    return ran, prediction


@pytest.mark.parametrize(
    ("want", "fields", "parts"),
    [
        (set(), set(), set()),
        ({"depth"}, {"depth", "confidence"}, {"head.pyramid", "head.depth_fusion"}),
        ({"rays"}, {"rays", "ray_confidence"}, {"head.pyramid", "head.ray_fusion"}),
        ({"cameras"}, {"camera_encoding", "T_cam_world", "K"}, {"camera_decoder"}),
        (
            TRAINING,
            {"depth", "confidence", "rays", "ray_confidence", "camera_encoding", "T_cam_world", "K"},
            {"head.pyramid", "head.depth_fusion", "head.ray_fusion", "camera_decoder"},
        ),
    ],
)
def test_nothing_is_computed_that_was_not_asked_for(model, images, want, fields, parts):
    ran, prediction = modules_that_ran(model, images, want=want)
    heads = {"head.pyramid", "head.depth_fusion", "head.ray_fusion", "camera_decoder", "camera_encoder"}
    assert ran & heads == parts
    given = {name for name, value in vars(prediction).items() if value is not None} - {"features", "is_metric"}
    assert given == fields
    assert not {name for name in ran if name.startswith(UNUSED)} - {"head.ray_outputs.0.norm"}  # which all levels share


def test_unknown_wishes_and_half_a_camera_are_refused(model, images, cameras):
    with pytest.raises(ValueError, match="normals"):
        model(images, want={"normals"})
    with pytest.raises(ValueError, match="together"):
        model(images, T_cam_world=cameras[0])
    with pytest.raises(ValueError, match=r"no blocks \[6\]"):
        model(images, features=(5, 6))


def test_fresh_weights_predict_plausible_numbers(model, images):
    p = model(images, want=TRAINING)
    assert (p.depth - 1).abs().max() < 0.2
    assert (p.confidence - 2).abs().max() < 0.2
    assert (p.camera_encoding[..., 6:] - 1).abs().max() < 0.2  # no rotation, one radian


def test_gradients_reach_every_weight_that_is_used(model, images, cameras):
    T_world_cam, K = cameras
    for given in ((), (invert_rigid(T_world_cam), K)):
        p = model(images, *given, reference_view="first", want=TRAINING)
        outputs = (p.depth, p.confidence, p.rays, p.ray_confidence, p.camera_encoding)
        sum((t * torch.randn_like(t)).sum() for t in outputs).backward()
    without = {name for name, q in model.named_parameters() if q.grad is None or not q.grad.abs().sum() > 0}
    shared_norm = {"head.ray_outputs.0.norm.weight", "head.ray_outputs.0.norm.bias"}  # under its first name
    unread = {name for name, _ in model.head.named_parameters(prefix="head") if name.startswith(UNUSED)}
    assert without == unread - shared_norm


def test_cameras_come_from_rays_through_outliers(model, images, cameras):
    """The head's rays are replaced by those of known cameras, a quarter of them wrong and unsure."""
    T_world_cam, K = cameras
    rays = rays_from_cameras(T_world_cam, K, (H, W), (24, 32))
    wrong = torch.rand(1, 4, 24, 32, generator=torch.Generator().manual_seed(2)) < 0.25
    rays = torch.where(wrong.unsqueeze(-1), torch.randn(rays.shape, generator=torch.Generator().manual_seed(3)), rays)
    confidence = torch.where(wrong, 1.0, 1000.0)
    model.head.register_forward_hook(lambda module, inputs, maps: DenseMaps(rays=rays, ray_confidence=confidence))
    p = model(images, want={"cameras_from_rays"})
    torch.testing.assert_close(p.T_cam_world, invert_rigid(T_world_cam), atol=1e-2, rtol=0)
    torch.testing.assert_close(p.K, K, atol=0.1, rtol=0)
    assert p.rays is None and p.camera_encoding is None
    both = model(images, want={"cameras", "cameras_from_rays"})
    torch.testing.assert_close(both.K, p.K)
    assert both.camera_encoding is not None


@pytest.mark.parametrize("how", ["module", "backbone", "autocast"])
def test_half_precision_gives_float32_close_to_the_truth(any_view_config, lively, images, cameras, how):
    model = lively(build_model(any_view_config))
    T_world_cam, K = cameras
    given = (invert_rigid(T_world_cam), K)
    truth = model(images, *given, want=TRAINING)
    {"module": model, "backbone": model.backbone, "autocast": torch.nn.Identity()}[how].to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        p = model(images, *given, want=TRAINING)
    for name in ("depth", "confidence", "rays", "ray_confidence", "camera_encoding", "T_cam_world", "K"):
        ours, theirs = getattr(p, name), getattr(truth, name)
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.05 * theirs.norm(), name


def test_the_forward_pass_never_waits_for_the_device(model, mono_config):
    """On the meta device, reading a value back raises."""
    images = torch.empty(2, 5, 3, 168, 224, device="meta")
    p = model.to("meta")(images, want=TRAINING, features=(3,))
    sky = build_model(mono_config).to("meta")(images).sky
    assert p.depth.shape == (2, 5, 168, 224) == sky.shape
    assert p.rays.shape == (2, 5, 96, 128, 6)
    assert p.T_cam_world.shape == (2, 5, 4, 4)


@pytest.mark.slow
def test_it_compiles_into_one_graph(model, images):
    def forward(x):
        p = model(x, want=TRAINING)
        return p.depth, p.confidence, p.rays, p.T_cam_world, p.K

    compiled = torch.compile(forward, fullgraph=True, backend="eager")
    for ours, truth in zip(compiled(images), forward(images), strict=True):
        torch.testing.assert_close(ours, truth)
