"""The table behind every figure of ours: a model on rendered worlds that no training has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from da3_core.engines.inputs import Normalise
from da3_core.evaluation.report import Report, Row, RowMode, row_from_scores
from da3_core.evaluation.scores import SceneAlignment, SceneScore, score_scenes
from da3_core.geometry.rigid import invert_rigid
from da3_core.model import Model, Mono, metres_from_canonical, normalise_cameras
from da3_core.model.nested import Nested
from da3_core.model.reference_view import Strategy
from da3_core.scenes import Samples, make_samples, seeds
from da3_core.scenes.kinds import KINDS
from da3_core.types import Prediction

VIEWS = (1, 2, 4, 8)
SIZES = ((168, 224), (252, 336))
SIZED = frozenset(i for i, name in enumerate(KINDS) if name != "object")  # kinds of worlds in which images show how large things are
FOCALS = ((0.5, 1.5), (0.5, 0.75), (0.75, 1.0), (1.0, 1.25), (1.25, 1.5))  # of the image's width; metric depth must hold over all


@dataclass(frozen=True)
class _Question:
    """One line of the table: how the model is asked, and how its depth is brought to metres."""

    mode: RowMode
    posed: bool
    alignment: SceneAlignment
    focals: tuple[tuple[float, float] | None, ...] = (None,)


_POSED = (_Question("posed", True, "baselines"), _Question("posed", True, "median"))
_UNPOSED = _Question("unposed", False, "median")
_METRIC = _Question("metric", False, "none", FOCALS)
_MONO = _Question("mono", False, "scale_shift")


@dataclass(frozen=True)
class _Asking:
    """How the model is run; stands in the report."""

    bf16: bool
    reference_view: Strategy
    cameras_from_rays: bool


def evaluate_scenes(
    model: Model,
    name: str = "",
    scenes: int = 128,
    views: Sequence[int] = VIEWS,
    sizes: Sequence[tuple[int, int]] = SIZES,
    batch: int = 8,
    device: str = "cpu",
    bf16: bool = False,
    reference_view: Strategy = "saddle_balanced",
    cameras_from_rays: bool = False,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Scores `model` on the first `scenes` worlds of the validation split; the same call gives the same report.

    An any-view or nested model is asked with and without the true cameras, for every number of views. Depth of posed windows is
    compared after the scale that the given cameras imply, and once more after one median per scene to tell shape from scale; depth
    of unposed ones after one median per scene. A metric model, or a nested one, is compared in metres, by focal length, in worlds whose
    things have their usual sizes (a heap of solids in the void has none); a relative mono model after scale and shift. Networks that
    see single views are shown single views. Images are rounded to 8 bits. Pose
    accuracy is of every scene, then averaged; see pose.py.

    name: stands in the report. sizes: (height, width), multiples of 14. batch: scenes at once. bf16: autocast, as in training.
    cameras_from_rays: instead of the camera decoder's. on_row: hears of every row as soon as it is known.
    Raises ValueError when there are not as many validation worlds.
    """
    asking = _Asking(bf16, reference_view, cameras_from_rays)
    model = model.eval().to(device)
    batches = seeds("validation", 0, scenes).to(device).split(batch)
    rows = []
    for size in sizes:
        for n_views in (1,) if isinstance(model, Mono) else views:
            for row in _rows(model, asking, batches, n_views, size):
                rows.append(row)
                on_row(row)
    return Report(name, {"scenes": scenes, **asdict(asking)}, rows)


@torch.inference_mode()
def _rows(model: Model, asking: _Asking, batches: Sequence[Tensor], n_views: int, size: tuple[int, int]) -> list[Row]:
    questions = _questions(model)
    scores: dict[_Question, list[SceneScore]] = {question: [] for question in questions}
    for batch in batches:
        samples = make_samples(batch, n_views, size, batch.device)
        predictions = {posed: _predict(model, asking, samples, posed) for posed in {q.posed for q in questions}}
        for q in questions:
            found = score_scenes(predictions[q.posed], samples, q.alignment)
            scores[q] += [score for score, kind in zip(found, samples.kind.tolist(), strict=True) if q.mode != "metric" or kind in SIZED]
    return [row_from_scores(q.mode, q.alignment, n_views, size, scores[q], focal) for q in questions for focal in q.focals]


def _questions(model: Model) -> tuple[_Question, ...]:
    if isinstance(model, Mono):
        return (_METRIC,) if model.config.metric else (_MONO,)
    return (*_POSED, _UNPOSED, _METRIC) if isinstance(model, Nested) else (*_POSED, _UNPOSED)


def _predict(model: Model, asking: _Asking, samples: Samples, posed: bool) -> Prediction:
    images = Normalise().to(samples.images.device)((samples.images * 255).round())
    prediction: Prediction
    with torch.autocast(images.device.type, torch.bfloat16, enabled=asking.bf16):
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
