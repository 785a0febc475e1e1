import pytest
import torch

from da3_core.model import build_model
from da3_core.model.backbone import EncodedViews

GRID = (3, 4)


@pytest.fixture
def model(any_view_config, lively):
    return lively(build_model(any_view_config))


@pytest.fixture
def backbone(model):
    return model.backbone


def assert_same(window, truth, views=slice(None)):
    for ours, theirs in zip(window.features, truth.features, strict=True):
        torch.testing.assert_close(ours.patches, theirs.patches[:, views])
        torch.testing.assert_close(ours.camera, theirs.camera[:, views])


def test_two_halves_make_the_whole(backbone, images):
    assert_same(backbone.decode_window(backbone.encode_views(images), GRID), backbone(images))


@pytest.mark.parametrize("wanted", [[2], [3, 0], []])
def test_patches_of_wanted_views_and_cameras_of_all(backbone, images, wanted):
    window = backbone.decode_window(backbone.encode_views(images), GRID, wanted=torch.tensor(wanted, dtype=torch.long))
    for ours, truth in zip(window.features, backbone(images).features, strict=True):
        torch.testing.assert_close(ours.patches, truth.patches[:, wanted])
        torch.testing.assert_close(ours.camera, truth.camera)


@pytest.mark.parametrize("posed", [False, True])
def test_views_encoded_one_by_one_make_the_same_window(backbone, images, posed):
    camera_tokens = torch.randn(1, 4, 32) if posed else None
    alone = [backbone.encode_views(images[:, i : i + 1]) for i in range(4)]
    cached = EncodedViews(
        torch.cat([v.tokens for v in alone], 1),
        torch.cat([v.class_tokens for v in alone], 1),
        {k: torch.cat([v.kept[k] for v in alone], 1) for k in alone[0].kept},
    )
    assert_same(backbone.decode_window(cached, GRID, camera_tokens), backbone(images, camera_tokens))


def test_before_alt_start_views_do_not_see_each_other_and_after_they_do(backbone, images):
    others = torch.cat([images[:, :1], torch.randn_like(images[:, 1:])], 1)
    here, there = backbone.encode_views(images), backbone.encode_views(others)
    torch.testing.assert_close(here.tokens[:, 0], there.tokens[:, 0])
    change = backbone.decode_window(here, GRID).features[3].patches - backbone.decode_window(there, GRID).features[3].patches
    assert change[:, 0].abs().max() > 0.1


def test_permuting_the_views_permutes_what_is_predicted(backbone, images):
    order = torch.tensor([2, 0, 3, 1])
    assert_same(backbone(images[:, order]), backbone(images), order)


def test_the_reference_view_moves_with_its_view_and_matters(backbone, images):
    order, reference = torch.tensor([2, 0, 3, 1]), 3
    moved = backbone(images[:, order], reference_view=order.tolist().index(reference))
    assert_same(moved, backbone(images, reference_view=reference), order)
    with pytest.raises(AssertionError):
        assert_same(backbone(images, reference_view=0), backbone(images, reference_view=reference))


def test_every_scene_of_a_batch_has_its_own_reference_view(backbone, images):
    pair = torch.cat([images, images])
    together = backbone(pair, reference_view=torch.tensor([1, 3])).features[3].patches
    torch.testing.assert_close(together[:1], backbone(images, reference_view=1).features[3].patches)
    torch.testing.assert_close(together[1:], backbone(images, reference_view=3).features[3].patches)


def test_given_cameras_leave_no_say_to_the_reference_view(backbone, images):
    camera_tokens = torch.randn(1, 4, 32)
    assert_same(backbone(images, camera_tokens, reference_view=0), backbone(images, camera_tokens, reference_view=3))


def test_chosen_blocks_are_given_back_in_the_order_of_the_views(model, images):
    p = model(images, features=(0, 5))
    assert set(p.features) == {"block_00", "block_05"}
    assert all(tokens.shape == (1, 4, 13, 32) for tokens in p.features.values())
    last = torch.cat([model.backbone.norm(p.features["block_05"])[:, :, 1:]], -1)
    torch.testing.assert_close(model.backbone(images).features[3].patches[..., 32:], last)


def test_mono_views_stay_alone(mono_config, lively, images):
    model = lively(build_model(mono_config))
    together, alone = model.backbone(images), model.backbone(images[:, 1:2])
    torch.testing.assert_close(together.features[3].patches[:, 1:2], alone.features[3].patches)
    assert together.features[3].patches.shape[-1] == 32


@pytest.mark.parametrize("size", [(43, 56), (42, 50)])
def test_images_that_are_not_whole_patches_are_refused(model, size):
    with pytest.raises(ValueError, match="multiples of 14"):
        model(torch.zeros(1, 1, 3, *size))
