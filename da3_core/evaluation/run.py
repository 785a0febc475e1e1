"""The table behind every figure of ours: a model on worlds or recordings that no training has seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from da3_core.engines.device import device_of
from da3_core.evaluation.material import Material, ValidationWorlds
from da3_core.evaluation.report import Report, Row, RowMode, row_from_scores
from da3_core.evaluation.scores import SceneAlignment, SceneScore, score_scenes
from da3_core.geometry.rigid import invert_rigid
from da3_core.model import Model, Mono, metres_from_canonical, normalise_cameras
from da3_core.model.images import normalise_images
from da3_core.model.nested import Nested
from da3_core.model.reference_view import Strategy
from da3_core.scenes import Samples
from da3_core.scenes.kinds import SIZELESS
from da3_core.scenes.sample import split_views
from da3_core.types import Prediction

VIEWS = (1, 2, 4, 8)
SIZES = ((168, 224), (252, 336))


@dataclass(frozen=True)
class _Question:
    """One line of the table: how the model is asked, and how its depth is brought to metres."""

    mode: RowMode
    posed: bool
    alignment: SceneAlignment


_POSED = (_Question("posed", True, "baselines"), _Question("posed", True, "median"), _Question("posed", True, "median_per_view"))
_UNPOSED = (_Question("unposed", False, "median"), _Question("unposed", False, "median_per_view"))
_METRIC = _Question("metric", False, "none")
_MONO = _Question("mono", False, "scale_shift")


@dataclass(frozen=True)
class _Asking:
    """How the model is run; stands in the report."""

    reference_view: Strategy
    cameras_from_rays: bool


def evaluate(
    model: Model,
    material: Material | None = None,
    name: str = "",
    views: Sequence[int] = VIEWS,
    sizes: Sequence[tuple[int, int]] = SIZES,
    batch: int = 8,
    device: str = "cpu",
    reference_view: Strategy = "saddle_balanced",
    cameras_from_rays: bool = False,
    progress: bool = False,
) -> Report:
    """Scores `model` on `material`, 128 validation worlds by default; the same call gives the same report.

    An any-view or nested model is asked with and without the true cameras, for every number of views. Depth of posed windows is
    compared after the scale that the given cameras imply, after one median per scene to tell shape from scale, and after one per view to
    tell what more views bring; depth of unposed ones after the latter two. A metric model, or a nested one, is compared in metres, by
    focal length, but not in worlds whose things have no usual size (a heap of solids in the void); a relative mono model after scale and
    shift. Networks that see single views are shown single views. Images are rounded to 8 bits. Pose accuracy is of every scene, then
    averaged; see pose.py.

    views: scenes have as many as the largest says, and are cut into windows of the others: every row sees the same images, and another
    largest number makes other scenes. name: stands in the report. sizes: (height, width), multiples of 14. batch: scenes at once.
    cameras_from_rays: instead of the camera decoder's. progress: show a bar.
    Raises ValueError when the material has not as many scenes or views, and for view counts that do not divide the largest.
    """
    longest = max(views)
    uneven = [n for n in views if longest % n]
    if uneven:
        raise ValueError(f"scenes of {longest} views cannot be cut into windows of {uneven[0]}: ask for these alone, or for divisors")
    asking = _Asking(reference_view, cameras_from_rays)
    material = ValidationWorlds() if material is None else material
    device = str(device_of(device))
    model = model.eval().to(device)
    if isinstance(model, Mono):
        views = (1,)
    rows: list[Row] = []
    with tqdm(total=len(sizes) * len(material), unit="scene", disable=not progress) as bar:
        for size in sizes:
            scores = _scores(model, asking, material.batches(longest, size, batch, device), views, bar)
            for (n, q), found in scores.items():
                focals = material.focals if q.mode == "metric" else (None,)
                rows += [row_from_scores(q.mode, q.alignment, n, size, found, focal) for focal in focals]
    return Report(name, {"scenes": len(material), "views_of_a_scene": longest, **material.contents, **asdict(asking)}, rows)


@torch.inference_mode()
def _scores(
    model: Model, asking: _Asking, batches: Iterable[Samples], views: Sequence[int], bar: tqdm[NoReturn]
) -> dict[tuple[int, _Question], list[SceneScore]]:
    questions = _questions(model)
    scores: dict[tuple[int, _Question], list[SceneScore]] = {(n, q): [] for n in views for q in questions}
    for batch in batches:
        for n in views:
            samples = split_views(batch, n)
            predictions = {posed: _predict(model, asking, samples, posed) for posed in {q.posed for q in questions}}
            for q in questions:
                found = score_scenes(predictions[q.posed], samples, q.alignment)
                scores[n, q] += [score for score in found if q.mode != "metric" or score.kind not in SIZELESS]
        bar.update(len(batch.images))
    return scores


def _questions(model: Model) -> tuple[_Question, ...]:
    if isinstance(model, Mono):
        return (_METRIC,) if model.config.metric else (_MONO,)
    return (*_POSED, *_UNPOSED, _METRIC) if isinstance(model, Nested) else (*_POSED, *_UNPOSED)


def _predict(model: Model, asking: _Asking, samples: Samples, posed: bool) -> Prediction:
    images = normalise_images((samples.images * 255).round() / 255)
    prediction: Prediction
    if isinstance(model, Mono):
        prediction = model(images)
        return _in_metres(prediction, samples.K) if model.config.metric else prediction
    cameras = (normalise_cameras(invert_rigid(samples.T_world_cam)), samples.K) if posed else (None, None)
    want = {"depth", "cameras_from_rays" if asking.cameras_from_rays else "cameras"}
    prediction = model(images, *cameras, reference_view=asking.reference_view, want=want)
    return prediction


def _in_metres(canonical: Prediction, K: Tensor) -> Prediction:
    depth = None if canonical.depth is None else metres_from_canonical(canonical.depth, K)
    return replace(canonical, depth=depth, is_metric=True)
