"""Recordings give a model the scenes that were recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from da3_core.datasets import TumRgbdWriter
from da3_core.evaluation.material import RecordedWindows, ValidationWorlds
from da3_core.evaluation.run import evaluate
from da3_core.geometry.rigid import invert_rigid
from da3_core.model import build_model
from da3_core.model.da3 import AnyView
from da3_core.model.images import normalise_images
from da3_core.model.presets import BackboneConfig, DPTConfig, MonoConfig
from da3_core.scenes import KINDS, Samples, make_samples, seeds
from da3_core.scenes.kinds import draw_kinds
from da3_core.types import Prediction

SIZE = (28, 42)
HALF_A_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # between the writer's convention and ours


class ToldTheTruth(AnyView):
    """Knows what was recorded, in a unit of its own, and finds it again by its images."""

    def __init__(self, samples: Samples) -> None:
        torch.nn.Module.__init__(self)
        self.samples = samples

    def forward(self, images: torch.Tensor, *cameras: torch.Tensor | None, **named: object) -> Prediction:  # type: ignore[override]
        index = torch.cdist(images.flatten(0, 1).flatten(1), normalise_images(self.samples.images[0]).flatten(1)).argmin(1)
        index = index.unflatten(0, images.shape[:2])
        T_cam_world = invert_rigid(self.samples.T_world_cam[0, index])
        T_cam_world[..., :3, 3] /= 2.5
        return Prediction(depth=self.samples.depth_m[0, index] / 2.5 + 1e-9, T_cam_world=T_cam_world, K=self.samples.K[0, index])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples]:
    samples = make_samples(torch.tensor([5]), 4, SIZE, kinds="room", effects=False)
    folder = tmp_path_factory.mktemp("recording") / "run"
    with TumRgbdWriter(folder) as writer:
        for i in range(4):
            image = (samples.images[0, i] * 255).round().byte().permute(1, 2, 0).numpy()
            # one calibration for all: the first one's
            K = samples.K[0, 0].double().numpy() - HALF_A_PIXEL
            writer.write(i * 10**8, image, samples.depth_m[0, i].numpy(), K, samples.T_world_cam[0, i].double().numpy())
    return folder, samples


def test_windows_hold_what_was_recorded(recorded: tuple[Path, Samples]) -> None:
    folder, samples = recorded
    (found,) = RecordedWindows([folder], 1).batches(4, SIZE, 8, "cpu")
    torch.testing.assert_close(found.images, samples.images, atol=0.003, rtol=0)
    torch.testing.assert_close(found.depth_m, samples.depth_m, atol=2e-4, rtol=0)
    expected = samples.T_world_cam.clone()
    expected[..., :3, 3] -= samples.T_world_cam[:, :1, :3, 3]
    torch.testing.assert_close(found.T_world_cam, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.K[0, 0], samples.K[0, 0], atol=1e-3, rtol=0)


def test_windows_are_the_same_every_time_and_come_from_all_recordings(recorded: tuple[Path, Samples], tmp_path: Path) -> None:
    folder, _ = recorded
    windows = RecordedWindows([folder, folder], 5)
    once, again = (list(windows.batches(2, SIZE, batch, "cpu")) for batch in (2, 5))
    assert [len(b.images) for b in once] == [2, 2, 1]
    assert torch.equal(torch.cat([b.images for b in once]), again[0].images)
    assert len({float(image.sum()) for image in again[0].images[:, 0]}) > 1
    assert {windows._window(i, 2)[0] for i in range(5)} == set(windows.recordings)


def test_worlds_are_those_of_the_usual_mix_or_of_the_kinds_asked_for() -> None:
    usual = make_samples(seeds("validation", 0, 3), 2, SIZE)
    found = list(ValidationWorlds(3).batches(2, SIZE, 3, "cpu"))
    assert len(found) == 1 and torch.equal(found[0].images, usual.images)
    batches = ValidationWorlds(3, ("abstract", "corridor")).batches(2, SIZE, 2, "cpu")
    kinds = [KINDS[i] for batch in batches for i in batch.kind]
    assert kinds == draw_kinds(seeds("validation", 0, 3), ("abstract", "corridor")) and set(kinds) <= {"abstract", "corridor"}


def test_the_truth_scores_perfectly(recorded: tuple[Path, Samples]) -> None:
    folder, samples = recorded
    report = evaluate(ToldTheTruth(samples), RecordedWindows([folder], 3), views=(1, 2), sizes=(SIZE,), batch=1)
    assert [(row.mode, row.views, row.scenes) for row in report.rows if row.alignment == "median"] == [
        ("posed", 1, 6),
        ("unposed", 1, 6),
        ("posed", 2, 3),
        ("unposed", 2, 3),
    ]
    assert report.settings["scenes"] == 3 and report.settings["recordings"] == [str(folder)]
    assert all(row.abs_rel is not None and row.abs_rel < 1e-3 for row in report.rows)
    assert all(row.auc30 is not None and row.auc30 > 0.95 for row in report.rows if row.views == 2)


def test_metres_are_compared_at_any_focal_length_and_sky_is_unknown(recorded: tuple[Path, Samples]) -> None:
    network = build_model(MonoConfig(BackboneConfig(32, 4, 2, (0, 1, 2, 3), position_grid=2), DPTConfig(8, (4, 8, 8, 8)), metric=True))
    torch.nn.init.constant_(network.head.sky_output.out.bias, 0.5)  # sky everywhere
    (row,) = evaluate(network, RecordedWindows([recorded[0]], 3), views=(1,), sizes=(SIZE,)).rows
    assert (row.mode, row.focal, row.scenes, row.sky_iou) == ("metric", None, 3, None)


def test_what_cannot_be_measured_on_is_refused(recorded: tuple[Path, Samples], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name folders in the TUM RGB-D layout"):
        RecordedWindows([])
    with pytest.raises(ValueError, match=r"no calibration|no rgb\.txt"):
        RecordedWindows([tmp_path])
    with pytest.raises(ValueError, match="4 frames cannot give 8 views"):
        list(RecordedWindows([recorded[0]]).batches(8, SIZE, 1, "cpu"))
    for worlds in (("room", "attic"), ()):
        with pytest.raises(ValueError, match="name some of room, corridor, outdoor, object, abstract"):
            ValidationWorlds(2, worlds)
    with pytest.raises(ValueError, match="validation"):
        list(ValidationWorlds(1 << 21).batches(1, SIZE, 1, "cpu"))
