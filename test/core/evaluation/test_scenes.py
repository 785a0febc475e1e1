"""The table's own correctness: predictions constructed from the truth must score as constructed."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from da3_core.evaluation.material import ValidationWorlds
from da3_core.evaluation.report import Report, row_from_scores
from da3_core.evaluation.run import evaluate
from da3_core.evaluation.scores import PoseScore, SceneScore, score_scenes
from da3_core.geometry.rigid import invert_rigid
from da3_core.geometry.sim3 import transform_cameras
from da3_core.model.da3 import AnyView, Mono
from da3_core.model.nested import Nested
from da3_core.model.presets import AnyViewConfig, BackboneConfig, DPTConfig, MonoConfig, NestedConfig
from da3_core.scenes import Samples, make_samples, seeds
from da3_core.scenes.kinds import KINDS, MIX, draw_kinds
from da3_core.types import Prediction, Sim3

UNIT_M = 2.5  # of the constructed network


@pytest.fixture(scope="module")
def samples() -> Samples:
    found = make_samples(seeds("validation", 0, 2), 3, (28, 42), kinds="outdoor", styles="robot")
    assert found.sky.any() and found.valid.any()
    return found


def told_truth(samples: Samples) -> Prediction:
    """A network that is right, in a frame and a unit of its own."""
    frame = torch.from_numpy(Rotation.from_euler("xyz", [0.4, -1.0, 2.0]).as_matrix()).float()
    S_net_world = Sim3(torch.tensor(1 / UNIT_M), frame, torch.tensor([1.0, 2, 3]))
    T_net_cam = transform_cameras(S_net_world, samples.T_world_cam)
    sky = torch.where(samples.sky, 0.9, 0.1)
    return Prediction(depth=samples.depth_m / UNIT_M + 1e-9, T_cam_world=invert_rigid(T_net_cam), K=samples.K, sky=sky)


@pytest.mark.parametrize("align", ["baselines", "median", "scale_shift"])
def test_the_truth_scores_perfectly(samples, align):
    for score in score_scenes(told_truth(samples), samples, align):
        assert score.abs_rel < 1e-4 and score.delta1 == 1
        assert score.pose == PoseScore(*[1.0] * 9)
        assert score.sky is not None and score.sky[0] == score.sky[1] > 0
        assert not score.fell_back


def test_only_the_baselines_see_that_depth_and_cameras_disagree(samples):
    prediction = told_truth(samples)
    stretched = replace(prediction, depth=1.1 * prediction.depth)
    for b, score in enumerate(score_scenes(stretched, samples, "baselines")):
        depth_m = samples.depth_m[b][samples.valid[b]]
        assert score.sq_rel == pytest.approx(0.01 * depth_m.mean().item(), rel=1e-2)  # (0.1 d)^2 / d
    assert [s.abs_rel for s in score_scenes(stretched, samples, "baselines")] == pytest.approx([0.1, 0.1], rel=1e-3)
    assert [s.abs_rel for s in score_scenes(stretched, samples, "median")] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert [s.abs_rel for s in score_scenes(stretched, samples, "none")] == pytest.approx([1 - 1.1 / UNIT_M] * 2, rel=1e-3)


def test_one_scale_is_shared_by_all_views_of_a_scene(samples):
    """A network that sees every view in a scale of its own is not excused."""
    prediction = told_truth(samples)
    uneven = prediction.depth * torch.tensor([1.0, 1.0, 2.0])[:, None, None]
    for score in score_scenes(replace(prediction, depth=uneven), samples, "median"):
        assert score.abs_rel > 0.1


def test_a_median_per_view_excuses_it_and_every_view_counts_alike(samples):
    prediction = told_truth(samples)
    uneven = prediction.depth * torch.tensor([1.0, 1.0, 2.0])[:, None, None]
    for score in score_scenes(replace(prediction, depth=uneven), samples, "median_per_view"):
        assert score.abs_rel < 1e-4
    wrong = torch.where(torch.arange(28 * 42).view(28, 42) % 2 == 0, 1.0, 1.2)  # every other pixel of the last view
    third = prediction.depth.clone()
    third[:, 2] *= wrong
    few = samples.valid.clone()
    few[:, 2, 4:] = False  # few pixels of it are known
    some = replace(samples, valid=few)
    scenes = [b for b in range(2) if bool(few[b, 2].any())]
    for b, score in enumerate(score_scenes(replace(prediction, depth=third), some, "median_per_view")):
        if b in scenes:
            assert 0.02 < score.abs_rel < 0.2 / 3 + 1e-3


def test_a_view_without_truth_is_left_out_of_the_mean(samples):
    valid = samples.valid.clone()
    valid[:, 0] = False
    for score in score_scenes(told_truth(samples), replace(samples, valid=valid), "median_per_view"):
        assert score.abs_rel < 1e-4


def test_scenes_do_not_share_a_scale(samples):
    prediction = told_truth(samples)
    depth = prediction.depth * torch.tensor([1.0, 7.0])[:, None, None, None]
    assert all(s.abs_rel < 1e-4 for s in score_scenes(replace(prediction, depth=depth), samples, "median"))


def test_cameras_that_do_not_move_fall_back_and_say_so(samples):
    still = replace(samples, T_world_cam=samples.T_world_cam[:, :1].expand(-1, 3, -1, -1))
    for score in score_scenes(told_truth(samples), still, "baselines"):
        assert score.fell_back and score.abs_rel < 1e-4


def test_a_wrong_rotation_costs_pose_accuracy_and_no_depth(samples):
    prediction = told_truth(samples)
    turned = prediction.T_cam_world.clone()
    turned[:, 1, :3] = torch.from_numpy(Rotation.from_euler("z", 9.5, degrees=True).as_matrix()).float() @ turned[:, 1, :3]
    for score in score_scenes(replace(prediction, T_cam_world=turned), samples, "baselines"):
        assert score.abs_rel < 1e-3
        assert score.pose.auc3 == pytest.approx(1 / 3)  # one pair of three has no part in it
        assert score.pose.auc30 == pytest.approx((9 / 3 + 21) / 30)  # the two others have from 10 degrees on
        assert (score.pose.rra5, score.pose.rra15, score.pose.rra30) == pytest.approx((1 / 3, 1, 1))


def test_depth_that_is_too_far_counts_in_wider_bounds(samples):
    prediction, half = told_truth(samples), torch.arange(28 * 42).view(28, 42) % 2 == 0
    for factor, deltas in ((1.5, (False, True, True)), (1.9, (False, False, True)), (2.0, (False, False, False))):
        depth = prediction.depth * torch.where(half, 1.0, factor)
        for b, score in enumerate(score_scenes(replace(prediction, depth=depth), samples, "baselines")):
            right = (samples.valid[b] & half).sum().item() / samples.valid[b].sum().item()
            expected = [1.0 if within else right for within in deltas]
            assert (score.delta1, score.delta2, score.delta3) == pytest.approx(expected)


def test_rotations_and_translations_have_accuracies_of_their_own(samples):
    truth = torch.eye(4).repeat(2, 3, 1, 1)
    truth[:, 1, 0, 3] = truth[:, 2, 1, 3] = 1.0
    found, turned = truth.clone(), torch.deg2rad(torch.tensor(20.0))
    found[:, 1, 0, 3], found[:, 1, 1, 3] = turned.cos(), turned.sin()
    found[:, 1:, :3, :3] = torch.from_numpy(Rotation.from_euler("z", [[20], [40]], degrees=True).as_matrix()).float()
    prediction = replace(told_truth(samples), T_cam_world=invert_rigid(found))
    for score in score_scenes(prediction, replace(samples, T_world_cam=truth), "median"):
        # Off by 20 and 0 degrees from the first camera; the third is by 10 on the circle around it, less the second's own 20
        assert (score.pose.rta5, score.pose.rta15, score.pose.rta30) == pytest.approx((1 / 3, 2 / 3, 1))
        assert (score.pose.rra5, score.pose.rra15, score.pose.rra30) == pytest.approx((0, 0, 2 / 3))


@pytest.mark.parametrize("what", ["depth", "T_cam_world"])
def test_failed_scenes_are_counted_not_averaged(samples, what: str):
    prediction = told_truth(samples)
    broken = getattr(prediction, what).clone()
    broken[1, 0, 0, 0] = torch.nan
    scores = score_scenes(replace(prediction, **{what: broken}), samples, "median")
    row = row_from_scores("unposed", "median", 3, (28, 42), scores)
    assert (row.scenes, row.failed) == (1, 1) and row.abs_rel < 1e-4


def test_cameras_that_stand_still_count_for_rotations_alone():
    moving, still = PoseScore(*[0.5] * 9), PoseScore(*[math.nan] * 3, 1.0, 1.0, 1.0, *[math.nan] * 3)
    scores = [SceneScore(0.1, 0.02, 0.9, 0.95, 0.99, pose, None, 0.6, 0, False) for pose in (moving, still)]
    row = row_from_scores("unposed", "median", 2, (28, 42), scores)
    assert (row.auc30, row.rta15, row.rra15) == (0.5, 0.5, 0.75)


def test_what_was_not_predicted_is_asked_for(samples):
    with pytest.raises(ValueError, match="no depth"):
        score_scenes(Prediction(), samples, "median")
    with pytest.raises(ValueError, match="for cameras"):
        score_scenes(Prediction(depth=samples.depth_m), samples, "baselines")


def test_rows_average_scenes_and_pool_sky():
    pose = PoseScore(0.2, 0.4, 0.3, 0.5, 0.6, 0.7, 0.1, 0.15, 0.25)
    scores = [
        SceneScore(0.1, 0.02, 0.9, 0.95, 0.99, pose, (30, 40), 0.6, 0, False),
        SceneScore(0.3, 0.04, 0.7, 0.85, 0.97, None, (0, 10), 1.2, 0, True),
    ]
    row = row_from_scores("posed", "baselines", 2, (28, 42), scores)
    assert (row.abs_rel, row.delta1, row.auc3, row.auc30, row.auc30_joint) == pytest.approx((0.2, 0.8, 0.2, 0.4, 0.3))
    assert row.sky_iou == pytest.approx(30 / 50) and row.fell_back == 1
    near = row_from_scores("metric", "none", 1, (28, 42), scores, focal=(1.0, 1.5))
    assert near.scenes == 1 and near.abs_rel == pytest.approx(0.3) and near.auc30 is None
    none = row_from_scores("metric", "none", 1, (28, 42), scores, focal=(0.7, 0.8))
    assert none.scenes == 0 and none.abs_rel is None
    report = Report("m", {"scenes": 2}, [row, none])
    written = json.loads(report.to_json())["rows"][0]
    expected = {"abs_rel": 0.2, "sq_rel": 0.03, "delta1": 0.8, "delta2": 0.9, "delta3": 0.98, **asdict(pose)}
    assert {name: written[name] for name in expected} == pytest.approx(expected)
    header, rule, first, second = report.to_markdown().strip().split("\n")
    assert header.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert first == "| posed | baselines (median in 1) | 2 | 28×42 | all | 2 | 0.200 | 0.800 | 0.200 | 0.400 | 0.600 |"


HEAD = DPTConfig(8, (4, 8, 8, 8))
ANY_VIEW = AnyViewConfig(BackboneConfig(16, 4, 1, (0, 1, 2, 3), 1, 1, 1), HEAD, camera_encoder_heads=1, camera_encoder_depth=1)
METRIC = MonoConfig(BackboneConfig(16, 4, 1, (0, 1, 2, 3)), HEAD, metric=True)


def tiny(config: AnyViewConfig | MonoConfig | NestedConfig) -> AnyView | Mono | Nested:
    torch.manual_seed(0)
    kinds = {AnyViewConfig: AnyView, MonoConfig: Mono, NestedConfig: Nested}
    return kinds[type(config)](config)


ASKED = [(mode, f"median{each}") for mode in ("posed", "unposed") for each in ("", "_per_view")]
ASKED.insert(0, ("posed", "baselines"))
LINES = {
    "any view": (ANY_VIEW, [(*line, views) for views in (1, 2) for line in ASKED]),
    "metric": (METRIC, [("metric", "none", 1)] * 5),
    "mono": (replace(METRIC, metric=False), [("mono", "scale_shift", 1)]),
}


@pytest.mark.parametrize(("config", "lines"), LINES.values(), ids=LINES.keys())
def test_every_kind_of_network_gets_its_lines(config, lines):
    report = evaluate(tiny(config), ValidationWorlds(2), "tiny", views=(1, 2), sizes=((28, 42),), batch=1)
    assert [(row.mode, row.alignment, row.views) for row in report.rows] == lines
    assert all((row.scenes, row.failed) == (4 // row.views, 0) for row in report.rows if row.mode != "metric")


def as_the_network_sees(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((images * 255).round() / 255 - mean[:, None, None]) / std[:, None, None]


@pytest.mark.parametrize("cameras", ["cameras", "cameras_from_rays"])
@torch.no_grad()
def test_the_network_is_conditioned_on_the_true_cameras_and_asked_for_the_right_ones(cameras):
    truth, network = make_samples(seeds("validation", 0, 2), 2, (28, 42)), tiny(ANY_VIEW)
    report = evaluate(network, ValidationWorlds(2), views=(2,), sizes=((28, 42),), cameras_from_rays=cameras == "cameras_from_rays")
    T_cam_world = truth.T_world_cam.inverse()
    T_cam_first = T_cam_world @ T_cam_world[:, :1].inverse()
    T_cam_first[..., :3, 3] *= 10  # the lower median of two distances is the first camera's own zero, held up to 0.1
    images, want = as_the_network_sees(truth.images), {"depth", cameras}
    posed, unposed = network(images, T_cam_first, truth.K, want=want), network(images, want=want)
    for row, prediction in zip(report.rows, (posed, posed, posed, unposed, unposed), strict=True):
        expected = torch.tensor([s.abs_rel for s in score_scenes(prediction, truth, row.alignment)]).mean().item()
        assert row.abs_rel == pytest.approx(expected, rel=1e-6 if row.alignment == "median" else 1e-3)


@torch.no_grad()
def test_metric_depth_is_scaled_by_the_focal_length_and_judged_where_things_have_a_size():
    truth, network = make_samples(seeds("validation", 0, 6), 1, (28, 42)), tiny(METRIC)
    depth = network(as_the_network_sees(truth.images)).depth * truth.K[:, :, 0, 0, None, None] / 300
    errors = [((d - t).abs() / t)[v].mean() for d, t, v in zip(depth, truth.depth_m, truth.valid, strict=True)]
    sized = [error for error, kind in zip(errors, truth.kind, strict=True) if KINDS[kind] != "object"]
    assert 0 < len(sized) < 6
    row = evaluate(network, ValidationWorlds(6), views=(1,), sizes=((28, 42),)).rows[0]
    assert row.scenes == len(sized) and row.abs_rel == pytest.approx(torch.stack(sized).mean().item(), rel=1e-5)


@torch.no_grad()
def test_rooms_that_are_abstract_have_a_size():
    report = evaluate(tiny(METRIC), ValidationWorlds(3, ("abstract", "object")), views=(1,), sizes=((28, 42),))
    kinds = draw_kinds(seeds("validation", 0, 3), ("abstract", "object"))
    assert set(kinds) == {"abstract", "object"} and report.rows[0].scenes == kinds.count("abstract")
    assert report.settings["worlds"] == ["abstract", "object"]


def test_nested_answers_as_both(samples):
    report = evaluate(tiny(NestedConfig(ANY_VIEW, METRIC)), ValidationWorlds(1), views=(2,), sizes=((28, 42),))
    assert [row.mode for row in report.rows] == ["posed"] * 3 + ["unposed"] * 2 + ["metric"] * 5


def test_the_same_call_gives_the_same_report_whatever_the_batch():
    first, second, other_batch = (
        evaluate(tiny(ANY_VIEW), ValidationWorlds(2), views=(2,), sizes=((28, 42),), batch=batch, cameras_from_rays=True)
        for batch in (2, 2, 1)
    )
    assert first.to_json() == second.to_json()
    assert [row.abs_rel for row in other_batch.rows] == pytest.approx([row.abs_rel for row in first.rows], rel=1e-3)
    asked = {"reference_view": "saddle_balanced", "cameras_from_rays": True}
    assert first.settings == {"scenes": 2, "views_of_a_scene": 2, "worlds": list(MIX), **asked}


def test_single_views_are_those_that_windows_are_made_of():
    """A network of single views is measured on the images of an any-view network's rows, not on others."""
    row, *_ = evaluate(tiny(METRIC), ValidationWorlds(2, ("room",)), views=(1, 2, 4), sizes=((28, 42),)).rows
    alone, *_ = evaluate(tiny(METRIC), ValidationWorlds(2, ("room",)), views=(4,), sizes=((28, 42),)).rows
    assert row.scenes == 8 and row == alone


def test_windows_that_would_leave_images_out_are_refused():
    with pytest.raises(ValueError, match="8 views cannot be cut into windows of 3"):
        evaluate(tiny(ANY_VIEW), ValidationWorlds(1), views=(3, 8))


def test_more_worlds_than_the_split_has_are_refused():
    with pytest.raises(ValueError, match="ask for fewer"):
        evaluate(tiny(ANY_VIEW), ValidationWorlds(1 << 21))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_figures():
    on_cpu, on_gpu = (
        evaluate(tiny(ANY_VIEW), ValidationWorlds(2), views=(2,), sizes=((28, 42),), device=device) for device in ("cpu", "cuda")
    )
    assert [row.abs_rel for row in on_gpu.rows] == pytest.approx([row.abs_rel for row in on_cpu.rows], rel=0.02)
