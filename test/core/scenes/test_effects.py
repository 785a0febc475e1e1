import torch
from scipy.fft import dctn

from da3_core.scenes.effects import add_noise, blur, compress, photograph, white_noise
from da3_core.scenes.rng import Draws


def test_blur_keeps_light_and_has_the_width_it_was_asked_for():
    impulse = torch.zeros(1, 1, 3, 21, 21)
    impulse[..., 10, 10] = 1.0
    spread = blur(impulse, torch.tensor([[1.2]]))
    offsets = torch.arange(21) - 10.0
    assert torch.allclose(spread.sum((-2, -1)), torch.ones(1, 1, 3))
    variance = (spread[0, 0, 0].sum(0) * offsets**2).sum()
    assert abs(variance - 1.44) < 0.05


def test_noise_is_white_normal_and_its_seeds_own():
    noise = white_noise(torch.tensor([1, 2]), torch.Size((2, 1, 3, 64, 64)))
    assert noise.mean().abs() < 0.03 and (noise.std() - 1).abs() < 0.02
    assert (noise[..., 1:] * noise[..., :-1]).mean().abs() < 0.03 and (noise[0] * noise[1]).mean().abs() < 0.04
    assert torch.equal(white_noise(torch.tensor([2]), torch.Size((1, 1, 3, 64, 64)))[0], noise[1])


def test_shot_noise_grows_with_light():
    light = torch.cat((torch.full((1, 1, 3, 64, 64), 0.05), torch.full((1, 1, 3, 64, 64), 0.8)), -1)
    noisy = add_noise(light, torch.tensor([5]), Draws(torch.tensor([5]), "x"))
    dark, bright = (noisy - light)[..., :64].std(), (noisy - light)[..., 64:].std()
    assert bright > 1.2 * dark


def test_compression_is_identity_at_zero_and_stays_within_its_step():
    image = torch.rand(1, 2, 3, 20, 30, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    none, coarse = compress(image, torch.zeros(1, 2)), compress(image, torch.full((1, 2), 0.1))
    assert torch.allclose(none, image, atol=1e-5)
    assert 0.02 < (coarse - image).abs().mean() < 0.5
    assert torch.allclose(compress(coarse, torch.full((1, 2), 0.1))[..., :16, :24], coarse[..., :16, :24], atol=0.05)


def test_photographs_are_images_and_their_worlds_own():
    light = torch.rand(3, 2, 3, 24, 32, generator=torch.Generator().manual_seed(1)) * 5
    images = photograph(light, torch.tensor([4, 5, 6]))
    assert images.dtype == torch.float32 and images.min() >= 0 and images.max() <= 1 and 0.15 < images.mean() < 0.85
    assert torch.allclose(photograph(light[1:2], torch.tensor([5]))[0], images[1], atol=1e-5)
    assert torch.allclose(photograph(100 * light, torch.tensor([4, 5, 6])), images, atol=0.02)  # exposure adapts


def fine_spectra(count: int) -> torch.Tensor:
    """(B, blocks, 4, 4) the finer half of the cosine transforms (SciPy's) of photographs of a wall that is lit alike everywhere."""
    green = photograph(torch.ones(count, 1, 3, 64, 96), torch.arange(count))[:, 0, 1]
    blocks = green.unfold(1, 8, 8).unfold(2, 8, 8).flatten(1, 2)
    return torch.from_numpy(dctn(blocks.numpy(), axes=(-2, -1), norm="ortho"))[..., 4:, 4:]


def test_photographs_are_noisy_and_some_are_compressed():
    """Noise is at all frequencies, each world's at its own level; compression rounds most of what is fine to nothing."""
    spectra = fine_spectra(96)
    is_compressed = (spectra.abs() < 1e-5).float().mean((1, 2, 3)) > 0.5
    assert 0.5 < is_compressed.float().mean() < 0.85
    level = spectra[~is_compressed].std((1, 2, 3))
    assert level.min() > 5e-4 and level.max() < 0.1 and level.max() > 4 * level.min()
