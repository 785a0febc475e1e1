import pytest
import torch

from da3_core.geometry.pinhole import K_from_parameters
from da3_core.geometry.rigid import invert_rigid, matrix_product, rigid_from_rt, rotation_from_quaternion
from da3_core.model.camera import CameraDecoder, CameraEncoder, cameras_from_encoding, encoding_from_cameras, normalise_cameras

H, W = 42, 56


def random_cameras(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    R = rotation_from_quaternion(torch.randn(1, n, 4, generator=generator))
    f = 30 + 50 * torch.rand(2, 1, n, generator=generator)
    T_cam_world = rigid_from_rt(R, torch.randn(1, n, 3, generator=generator))
    return T_cam_world, K_from_parameters(f[0], f[1], torch.full((1, n), W / 2), torch.full((1, n), H / 2))


def test_cameras_survive_their_encoding():
    T_cam_world, K = random_cameras(20)
    T_back, K_back = cameras_from_encoding(encoding_from_cameras(T_cam_world, K, (H, W)), (H, W))
    torch.testing.assert_close(T_back, T_cam_world, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(K_back, K, atol=1e-4, rtol=1e-5)


def test_a_quaternion_of_any_length_is_a_rotation():
    encoding = encoding_from_cameras(*random_cameras(5), (H, W))
    longer = torch.cat([encoding[..., :3], 3 * encoding[..., 3:7], encoding[..., 7:]], -1)
    torch.testing.assert_close(cameras_from_encoding(longer, (H, W))[0], cameras_from_encoding(encoding, (H, W))[0], atol=1e-6, rtol=1e-5)


def test_a_field_of_view_of_zero_gives_a_long_focal_length_and_not_an_infinite_one():
    encoding = torch.tensor([0, 0, 0, 0, 0, 0, 1, 0, 1.0])
    _, K = cameras_from_encoding(encoding, (H, W))
    assert K[1, 1] == pytest.approx(H / 2 / 1e-6)
    assert K[0, 0] == pytest.approx(W / 2 / torch.tan(torch.tensor(0.5)).item())


def test_the_decoder_never_opens_a_field_of_view_below_zero():
    torch.manual_seed(0)
    decoder = CameraDecoder(8)
    decoder.fov.bias.data.fill_(-1.0)
    encoding = decoder(torch.randn(2, 3, 8))
    assert (encoding[..., 7:] == 0).all()
    assert cameras_from_encoding(encoding, (H, W))[1].isfinite().all()


def test_the_encoder_sees_motion_and_focal_length_but_no_principal_point(lively):
    encoder = lively(CameraEncoder(16, 4, 2, 1.0))
    T_cam_world, K = random_cameras(3)
    tokens = encoder(T_cam_world, K, (H, W))
    shifted, zoomed = K.clone(), K.clone()
    shifted[..., :2, 2] += 5
    zoomed[:, 0, 0, 0] *= 1.5
    torch.testing.assert_close(encoder(T_cam_world, shifted, (H, W)), tokens)
    change = (encoder(T_cam_world, zoomed, (H, W)) - tokens).abs().amax(-1)[0]
    assert (change > 1e-3).all()  # of one camera, seen by all


@pytest.mark.parametrize("n", [2, 3, 6])
def test_normalised_cameras_start_at_the_first_and_have_a_median_distance_of_one(n):
    T_cam_world, _ = random_cameras(n)
    normalised = normalise_cameras(T_cam_world)
    torch.testing.assert_close(normalised[:, 0], torch.eye(4).expand(1, 4, 4), atol=1e-5, rtol=0)
    distances = normalised[0, :, :3, 3].norm(dim=-1).sort().values
    if n > 2:  # of two, the lower median is the first camera's own zero
        assert distances[(n - 1) // 2] == pytest.approx(1)

    def relative(T):  # camera 0 in the last one
        return matrix_product(T[:, -1], invert_rigid(T[:, 0]))

    before, after = relative(T_cam_world), relative(normalised)
    torch.testing.assert_close(after[..., :3, :3], before[..., :3, :3])
    torch.testing.assert_close(after[..., :3, 3].cross(before[..., :3, 3], dim=-1), torch.zeros(1, 3), atol=1e-5, rtol=0)


def test_cameras_that_hardly_move_are_blown_up_tenfold_at_most():
    T_cam_world = torch.eye(4).repeat(1, 3, 1, 1)
    T_cam_world[:, 1:, 0, 3] = 0.01
    torch.testing.assert_close(normalise_cameras(T_cam_world)[0, :, 0, 3], torch.tensor([0, 0.1, 0.1]))
