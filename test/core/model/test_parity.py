"""Every tensor of the parity cases, within a hundred-thousandth."""

import json

import pytest
from safetensors.torch import load_file

from da3_core.geometry.rigid import invert_rigid
from da3_core.model import load_model, normalise_cameras
from da3_core.model.camera import cameras_from_encoding, encoding_from_cameras
from da3_core.model.reference_view import choose_reference_view

TOLERANCE = 1e-5
CASES = [
    "mono",
    "two_views",
    "four_views_saddle",
    "four_views_middle",
    "five_views_simrange",
    "ten_views_first",
    "posed",
    "batch_of_two",
    "stored_grid",
]
WITH_INTERMEDIATES = ["mono", "four_views_saddle", "posed"]


@pytest.fixture(scope="module", params=["anyview", "anyview_swiglu_gs"])
def network(request, shared):
    folder = shared / "parity" / request.param
    return folder, load_model(folder).requires_grad_(False)


@pytest.fixture
def check(relative_error):
    def check(**pairs):
        errors = {name: relative_error(ours, truth) for name, (ours, truth) in pairs.items()}
        assert not {name: error for name, error in errors.items() if not error < TOLERANCE}

    return check


def predict(model, case, reference_view, **more):
    return model(case["images"], case.get("extrinsics_in"), case.get("intrinsics_in"), reference_view, **more)


@pytest.mark.parametrize("name", CASES)
def test_outputs(network, check, name):
    folder, model = network
    case = load_file(folder / "cases" / f"{name}.safetensors")
    reference_view = json.loads((folder / "cases.json").read_text())[name]["ref_view_strategy"]
    p = predict(model, case, reference_view, want={"depth", "cameras", "rays"})
    check(
        depth=(p.depth, case["out_depth"]),
        head_depth=(p.depth, case["head_depth"]),
        confidence=(p.confidence, case["out_depth_conf"]),
        head_confidence=(p.confidence, case["head_depth_conf"]),
        rays=(p.rays, case["head_ray"]),
        ray_confidence=(p.ray_confidence, case["head_ray_conf"]),
        T_cam_world=(p.T_cam_world[..., :3, :], case["out_extrinsics"]),
        K=(p.K, case["out_intrinsics"]),
    )


@pytest.mark.parametrize("name", WITH_INTERMEDIATES)
def test_every_block_feature_and_camera_number(network, check, name):
    folder, model = network
    case = load_file(folder / "cases" / f"{name}.safetensors")
    config, images = model.config.backbone, case["images"]
    grid = (images.shape[-2] // 14, images.shape[-1] // 14)
    camera_tokens = model.camera_tokens(case.get("extrinsics_in"), case.get("intrinsics_in"), images.shape[-2:])
    p = predict(model, case, "saddle_balanced", features=range(config.depth))
    views = model.backbone.encode_views(images)
    window = model.backbone.decode_window(views, grid, camera_tokens)

    order = order_in_reference(model, views, images.shape[1], posed=camera_tokens is not None)
    for i in range(config.depth):
        tokens = p.features[f"block_{i:02d}"]
        tokens = tokens[:, order] if i >= config.alt_start - 1 else tokens
        truth = case[f"block{i:02d}_out"]
        check(**{f"block {i}": (tokens.reshape(truth.shape), truth)})
    for k, feature in enumerate(window.features):
        check(**{f"patches {k}": (feature.patches, case[f"feat{k}"]), f"camera {k}": (feature.camera, case[f"feat{k}_cam"])})
    patch_embedding = model.backbone.patch_embed(images.flatten(0, 1)).flatten(2).transpose(1, 2)
    check(patch_embed=(patch_embedding, case["patch_embed_out"]), encoding=(p.camera_encoding, case["cam_dec_out"]))
    if camera_tokens is not None:
        check(camera_tokens=(camera_tokens, case["cam_enc_out"]))


def order_in_reference(model, views, n, posed):
    """The recorded activations have the reference view in front from the block before alt_start on."""
    r = 0 if posed else int(choose_reference_view(views.class_tokens, "saddle_balanced"))
    return [r, *(i for i in range(n) if i != r)]


@pytest.mark.parametrize("name", ["gaussians", "gaussians_posed"])
def test_gaussians(shared, check, name):
    folder = shared / "parity" / "anyview_swiglu_gs"
    model, case = load_model(folder).requires_grad_(False), load_file(folder / "cases" / f"{name}.safetensors")
    raw = []
    model.gaussian_head.register_forward_hook(lambda module, inputs, output: raw.append(output))
    p = predict(model, case, "saddle_balanced", want={"gaussians"})
    check(
        raw=(raw[0][..., :37], case["gshead_raw_gs"]),
        raw_opacity=(raw[0][..., 37].sigmoid(), case["gshead_raw_gs_conf"]),
        mean=(p.gaussians.mean, case["gs_means"]),
        scale=(p.gaussians.scale, case["gs_scales"]),
        quaternion=(p.gaussians.quaternion, case["gs_rotations"]),
        sh=(p.gaussians.sh, case["gs_harmonics"]),
        opacity=(p.gaussians.opacity, case["gs_opacities"]),
        depth=(p.depth, case["out_depth"]),
        T_cam_world=(p.T_cam_world[..., :3, :], case["out_extrinsics"]),
        K=(p.K, case["out_intrinsics"]),
    )


@pytest.mark.parametrize("name", ["one", "three"])
def test_mono(shared, check, name):
    folder = shared / "parity" / "mono"
    model, case = load_model(folder).requires_grad_(False), load_file(folder / "cases" / f"{name}.safetensors")
    p, (raw_depth, raw_sky) = model(case["images"]), model.depth_and_sky(case["images"])
    check(
        depth=(p.depth, case["out_depth"]),
        sky=(p.sky, case["out_sky"]),
        raw_depth=(raw_depth, case["head_depth"]),
        raw_sky=(raw_sky, case["head_sky"]),
    )


def test_nested(shared, check):
    folder = shared / "parity" / "nested"
    model, case = load_model(folder).requires_grad_(False), load_file(folder / "cases" / "three.safetensors")
    p = model(case["images"])
    check(
        depth=(p.depth, case["out_depth"]),
        confidence=(p.confidence, case["out_depth_conf"]),
        T_cam_world=(p.T_cam_world[..., :3, :], case["out_extrinsics"]),
        K=(p.K, case["out_intrinsics"]),
        scale_factor=(p.scale_factor, case["scale_factor"]),
    )
    assert p.is_metric


def test_camera_encoding(shared, check):
    case = load_file(shared / "parity" / "cameras" / "cases.safetensors")
    encoding = encoding_from_cameras(case["T_cam_world"], case["K"], (56, 84))
    T_cam_world, K = cameras_from_encoding(case["pose_encoding"], (56, 84))
    check(
        encoding=(encoding, case["pose_encoding"]),
        T_world_cam=(invert_rigid(T_cam_world)[..., :3, :], case["T_world_cam_back"]),
        K=(K, case["K_back"]),
    )


@pytest.mark.parametrize("name", ["two", "five", "six"])
def test_given_cameras_are_normalised(shared, check, name):
    case = load_file(shared / "parity" / "cameras" / "given_cameras.safetensors")
    check(T_cam_world=(normalise_cameras(case[f"{name}_T_cam_world"]), case[f"{name}_T_cam_world_normalised"]))
