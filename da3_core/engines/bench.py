"""What a new frame costs: engines against the network run anew, in the same process on the same images."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import cast

import torch

from da3_core.engines.choice import Name, choose, make_engine
from da3_core.engines.device import device_of
from da3_core.engines.eager import FullRecompute
from da3_core.engines.incremental import AnyViewEngine
from da3_core.engines.roofline import work_of_a_frame
from da3_core.model import PRESETS
from da3_core.model.checkpoint import load_model
from da3_core.model.da3 import AnyView
from da3_core.model.presets import AnyViewConfig
from da3_core.types import Prediction, View

Size = tuple[int, int]
PATCH = 14
WARM_UP = 3  # windows: one fills what is kept, one runs as it is, one is recorded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One window's figures. Times are medians over frames, from uint8 images on the host; `frame_ms` until depth and pose are on the
    device, `frame_to_host_ms` until they are float32 on the host."""

    model: str
    views: int
    wanted: int
    size: Size
    engine: str
    precision: str
    posed: bool
    frame_ms: float
    frame_to_host_ms: float
    slowest_ms: float  # 95 of 100 frames are faster
    recompute_ms: float  # of the whole network in PyTorch, in autocast where the engine's precision is a half one
    memory_mb: float  # of the device, weights and engine included; on a CPU not known (0)
    depth_error: float  # median relative difference from the network run anew in float32
    gflop: float  # of a new frame's products and convolutions
    gbyte: float  # that these read and write
    weights_mb: float
    prepare_s: float  # until the engine was ready
    description: str


@dataclass(frozen=True)
class Case:
    """A full window of `views` images (H, W) that one new view enters, for which depth is wanted; or, with `all_wanted`, one whose views
    are all new and all wanted."""

    size: Size
    views: int
    posed: bool = False
    all_wanted: bool = False

    @property
    def wanted(self) -> list[int]:
        return list(range(self.views)) if self.all_wanted else [self.views - 1]

    @property
    def new(self) -> int:
        """Views of a window that the one before did not have."""
        return self.views if self.all_wanted else 1

    def windows(self) -> Iterator[list[View]]:
        """Windows of random images along a path, without end."""
        generator, step = torch.Generator().manual_seed(0), self.new
        window = [_view(i, self.size, generator) for i in range(self.views)]
        for next_id in itertools.count(self.views, step):
            yield window
            window = [*window[step:], *(_view(next_id + i, self.size, generator) for i in range(step))]


def random_model(preset: str) -> AnyView:
    """Weights of the order of one over the square root of the fan-in: untrained, but every part has a say in the result."""
    torch.manual_seed(0)
    model = load_model(preset, weights=None)
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.shape[0] > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return cast(AnyView, model)


def bench_presets(
    names: Sequence[str],
    engines: Sequence[str],
    views: Sequence[int],
    sizes: Sequence[Size],
    *,
    device: str = "auto",
    posed: bool = False,
    frames: int = 20,
) -> list[Row]:
    """A row for every preset, size (H, W), engine and window size, with random weights: what a frame costs does not depend on them.

    Before anything is measured, raises ValueError where a name is no any-view preset, a side no multiple of 14, or there is no such engine.
    """
    jobs = [(name, size, engine, _accept(name, engine, size, device)) for name, size, engine in itertools.product(names, sizes, engines)]
    rows, numbers = [], itertools.count(1)
    for name, of_preset in itertools.groupby(jobs, lambda job: job[0]):
        model = random_model(name)
        for _, size, engine, chosen in of_preset:
            if len(jobs) > 1:
                logger.info("%d of %d: %s, %dx%d, %s", next(numbers), len(jobs), name, *size, engine)
            measured = [bench_window(model, name, engine, Case(size, n, posed), device=device, frames=frames) for n in views]
            rows += [dataclasses.replace(row, engine=chosen) for row in measured]
    return rows


def bench_window(
    model: AnyView, name: str, engine_name: str, case: Case, *, device: str = "auto", precision: str = "auto", frames: int = 50
) -> Row:
    """Measures one row. `model` is in float32."""
    _free_memory()
    started, memory = time.perf_counter(), _used_memory_mb()
    engine = cast(AnyViewEngine, make_engine(engine_name, model, device, case.views, precision))
    engine.prepare(case.size, len(case.wanted))
    prepare_s = time.perf_counter() - started
    windows = list(itertools.islice(case.windows(), frames + WARM_UP))
    device_ms = times_ms(lambda window: engine.predict(window, case.wanted, case.posed), windows)
    engine.reset()
    host_ms = times_ms(lambda window: engine.infer(window, case.wanted, case.posed), windows)
    prediction = engine.infer(windows[-1], case.wanted, case.posed)
    memory = _used_memory_mb() - memory
    published = FullRecompute(model.to(engine.device), engine.kind, autocast=engine.dtype if engine.dtype.itemsize == 2 else None)
    recompute_ms = times_ms(lambda window: published.infer(window, case.wanted, case.posed), windows[: WARM_UP + max(2, frames // 10)])
    exact = FullRecompute(model, engine.kind)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        error = depth_error(prediction, exact.infer(windows[-1], case.wanted, case.posed))
    work = work_of_a_frame(model.config, engine.dtype, case.size, case.views, case.new, len(case.wanted))
    return Row(
        model=name,
        views=case.views,
        wanted=len(case.wanted),
        size=case.size,
        engine=engine_name,
        precision=str(engine.dtype).removeprefix("torch."),
        posed=case.posed,
        frame_ms=median(device_ms),
        frame_to_host_ms=median(host_ms),
        slowest_ms=sorted(device_ms)[int(0.95 * len(device_ms))],
        recompute_ms=median(recompute_ms),
        memory_mb=memory,
        depth_error=error,
        gflop=work.gflop,
        gbyte=work.gbyte,
        weights_mb=sum(p.numel() for p in model.parameters()) * engine.dtype.itemsize / 1e6,
        prepare_s=prepare_s,
        description=engine.programs.description,
    )


def times_ms(run: Callable[[list[View]], object], windows: Sequence[list[View]]) -> list[float]:
    """Of every window but the first ones."""
    times = []
    for window in windows:
        started = time.perf_counter()
        run(window)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - started))
    return times[WARM_UP:]


def depth_error(prediction: Prediction, reference: Prediction) -> float:
    """Median relative difference of depth."""
    if prediction.depth is None or reference.depth is None:
        raise ValueError("there is no depth to compare: ask for some")
    return float(((prediction.depth - reference.depth).abs() / reference.depth).median())


def table(rows: Sequence[Row]) -> str:
    """For people."""
    head = (
        "model",
        "views",
        "wanted",
        "size",
        "engine",
        "precision",
        "poses",
        "ms/frame",
        "frames/s",
        "to host",
        "recompute",
        "times",
        "MB",
        "error",
    )
    lines = [head, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cells(r: Row) -> tuple[str, ...]:
    return (
        *(r.model, str(r.views), str(r.wanted), f"{r.size[0]}x{r.size[1]}", r.engine, r.precision, "given" if r.posed else "none"),
        *(f"{r.frame_ms:.2f}", f"{1e3 / r.frame_ms:.1f}", f"{r.frame_to_host_ms:.2f}", f"{r.recompute_ms:.1f}"),
        *(f"{r.recompute_ms / r.frame_ms:.1f}", f"{r.memory_mb:.0f}", f"{r.depth_error:.1e}"),
    )


def as_json(rows: Sequence[Row]) -> str:
    """For programs."""
    return json.dumps([dataclasses.asdict(row) for row in rows], indent=1)


def _accept(name: str, engine: str, size: Size, device: str) -> Name:
    """The engine that `engine` stands for."""
    presets = [preset for preset, config in PRESETS.items() if isinstance(config, AnyViewConfig)]
    if name not in presets:
        raise ValueError(f"{name!r} is no any-view preset: take one of {', '.join(presets)}")
    if any(side < PATCH or side % PATCH for side in size):
        raise ValueError(f"images of {size[0]}x{size[1]} do not divide into patches: take multiples of {PATCH}")
    return choose(engine, device_of(device))[0]


def _view(view_id: int, size: Size, generator: torch.Generator) -> View:
    H, W = size
    image = torch.randint(0, 256, (3, H, W), generator=generator, dtype=torch.uint8)
    K = torch.tensor([[0.8 * W, 0, W / 2], [0, 0.8 * W, H / 2], [0, 0, 1]], dtype=torch.float64)
    T_world_cam = torch.eye(4, dtype=torch.float64)
    T_world_cam[0, 3] = 0.2 * view_id
    return View(view_id, "bench", view_id, image, K, T_world_cam)


def _free_memory() -> None:
    """What an earlier row left to PyTorch: an engine that found it there would seem to need less."""
    gc.collect()
    torch.cuda.empty_cache()


def _used_memory_mb() -> float:
    if not torch.cuda.is_available():
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e6
