"""The GPU tables of docs/performance.md in one command: python scripts/bench_gpu.py OUTPUT_FOLDER.

Packages are built side by side; then rows are measured one after the other, in one process a model and engine. Whatever is measured is
appended to rows.jsonl at once, whatever fails to errors.txt, and neither stops the rest.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).parents[1]))

from da3_core.engines import make_engine
from da3_core.engines.bench import WARM_UP, Case, Row, bench_window, random_model, table
from da3_core.engines.roofline import work_of_a_frame
from da3_core.model import load_model, save_model

PROFILED = 11  # windows
HOST_THREADS = {"OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "2"}  # a process: more spin against each other, and delay launches
ATTENTION_SHAPES = ((6, 8), (6, 16), (12, 8), (12, 16), (16, 8), (16, 16))  # heads, views


@dataclass(frozen=True)
class Job:
    """A row to be measured."""

    model: str
    case: Case

    @property
    def name(self) -> str:
        kind = "-all" if self.case.all_wanted else "-posed" if self.case.posed else ""
        return f"{self.model}-{self.case.views}{kind}"


def main() -> None:
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    os.environ.update(HOST_THREADS)
    chip = machine()
    say(options.output, {"chip": chip, "attention_ms": attention_ms(options.size)})
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        weights = {model: Path(folder) / model for model in options.models}
        for model, path in weights.items():
            save_model(random_model(model), path)
        if "compiled" in options.engines:
            in_processes(options, options.processes, build, [(weights[job.model], job) for job in jobs(options) if not job.case.posed])
        for engine in options.engines:
            for model, path in weights.items():
                in_processes(options, 1, measure, [(path, [job for job in jobs(options) if job.model == model], engine, chip, options)])
    results = map(json.loads, (options.output / "rows.jsonl").read_text().splitlines())
    print(table([Row(**result["row"]) for result in results if "row" in result]))


def jobs(options: argparse.Namespace) -> list[Job]:
    rows = [Job(model, Case(options.size, views)) for model in options.models for views in options.views]
    posed = [Job(model, Case(options.size, views, posed=True)) for model in options.models for views in options.posed_views]
    offline = [Job("da3-small", Case(options.size, views, all_wanted=True)) for views in options.offline_views]
    return [*rows, *posed, *(job for job in offline if job.model in options.models)]


def in_processes(options: argparse.Namespace, count: int, run: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
    """`count` calls at a time, in processes of their own."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for call, done in [(call, pool.submit(run, *call)) for call in calls]:
            attempt(options.output, f"{run.__name__} {call[:2]}", done.result)


def build(weights: Path, job: Job) -> None:
    """What a window runs, with poses or without, into the cache that `measure` finds it in."""
    engine: Any = make_engine("compiled", load_model(weights), "cuda", job.case.views)
    engine.prepare(job.case.size, len(job.case.wanted))
    print(f"built {job.name}: {engine.description}", flush=True)


def measure(weights: Path, rows: Sequence[Job], engine: str, chip: dict[str, Any], options: argparse.Namespace) -> None:
    """All rows of a model."""
    model: Any = load_model(weights, device="cuda")
    for job in rows:
        if time.time() < options.deadline:
            attempt(options.output, f"{job.name} by {engine}", partial(measure_row, options, job, model, engine, chip))


def measure_row(options: argparse.Namespace, job: Job, model: Any, engine: str, chip: dict[str, Any]) -> None:
    case = job.case
    row = bench_window(model, job.model, engine, case, device="cuda", frames=options.frames // (5 if case.all_wanted else 1))
    say(options.output, {"row": dataclasses.asdict(row)})
    work = work_of_a_frame(model.config, getattr(torch, row.precision), case.size, case.views, case.new, len(case.wanted))
    least_ms = work.least_ms(chip["matmul_tflops"], chip["copy_gb_s"])
    gc.collect()
    gpu_ms, kernels = kernel_times(engine_runs(job, model, engine))
    say(options.output, {"name": job.name, "engine": engine, "least_ms": least_ms, "gpu_ms": gpu_ms, "kernels_us": kernels})
    print(
        f"{job.name} by {engine}: {row.frame_ms:.2f} ms, 95 % within {row.slowest_ms:.2f}, to host {row.frame_to_host_ms:.2f}, "
        f"recompute {row.recompute_ms:.1f}, {row.wanted * 1e3 / row.frame_ms:.0f} views/s, {row.gflop:.0f} GFLOP, {row.gbyte:.2f} GB, "
        f"least {least_ms:.2f} ms ({100 * least_ms / row.frame_ms:.0f} %), GPU busy {gpu_ms:.2f} ms, error {row.depth_error:.1e}",
        flush=True,
    )


def engine_runs(job: Job, model: Any, name: str) -> list[Callable[[], object]]:
    engine: Any = make_engine(name, model, "cuda", job.case.views)
    engine.prepare(job.case.size, len(job.case.wanted))
    windows = islice(job.case.windows(), WARM_UP + (2 if job.case.all_wanted else PROFILED))
    return [lambda window=window: engine.predict(window, job.case.wanted, job.case.posed) for window in windows]  # type: ignore[misc]


def kernel_times(runs: list[Callable[[], object]]) -> tuple[float, dict[str, float]]:
    """Milliseconds that the GPU is busy in a frame, and microseconds a frame of its kernels, those that take longest first."""
    for run in runs[:WARM_UP]:
        run()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for run in runs[WARM_UP:]:
            run()
        torch.cuda.synchronize()
    frames = len(runs) - WARM_UP
    kernels = [event for event in profile.key_averages() if str(event.device_type).endswith("CUDA")]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    longest = {f"{event.count / frames:.1f} x {event.key[:110]}": event.self_device_time_total / frames for event in kernels}
    return sum(longest.values()) / 1e3, longest


def machine() -> dict[str, Any]:
    """What the chip reaches: a large product of random bf16 matrices, and a large copy, reads and writes counted."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    x = torch.empty(2**32, device="cuda", dtype=torch.uint8)
    y = torch.empty_like(x)
    return {
        "name": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "matmul_tflops": 2 * 8192**3 / event_ms(lambda: a @ b) / 1e9,
        "copy_gb_s": 2 * x.numel() / event_ms(lambda: y.copy_(x)) / 1e6,
    }


def attention_ms(size: tuple[int, int]) -> dict[str, float]:
    """One layer's attention across views, by each of PyTorch's kernels."""
    times = {}
    for heads, views in ATTENTION_SHAPES:
        length = views * (1 + size[0] * size[1] // 196)
        q, k, v = torch.randn(3, 1, length, heads, 64, device="cuda", dtype=torch.bfloat16).transpose(2, 3).unbind()
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            with sdpa_kernel(backend):
                times[f"{heads} heads, {views} views, {backend.name}"] = event_ms(
                    lambda q=q, k=k, v=v: torch.nn.functional.scaled_dot_product_attention(q, k, v)  # type: ignore[misc]
                )
    return times


def event_ms(run: Callable[[], object], repeats: int = 10) -> float:
    for _ in range(3):
        run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / repeats


def say(output: Path, what: dict[str, Any]) -> None:
    with (output / "rows.jsonl").open("a") as file:
        file.write(json.dumps(what) + "\n")


def attempt(output: Path, what: str, run: Callable[[], Any]) -> None:
    try:
        run()
    except Exception:
        print(f"FAILED {what}: {traceback.format_exc()[-600:]}", flush=True)
        with (output / "errors.txt").open("a") as file:
            file.write(f"=== {what}\n{traceback.format_exc()}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for rows.jsonl and errors.txt")
    parser.add_argument("--models", nargs="+", default=["da3-small", "da3-base", "da3-large"], help="presets, with random weights")
    parser.add_argument("--views", nargs="*", type=int, default=[1, 4, 8, 16], help="windows that one view enters")
    parser.add_argument("--posed-views", nargs="*", type=int, default=[8], help="the same with given cameras")
    parser.add_argument("--offline-views", nargs="*", type=int, default=[32], help="windows of new views, all wanted, of da3-small")
    parser.add_argument("--engines", nargs="+", default=["compiled", "eager"], help="eager: PyTorch's kernels, recorded as CUDA graphs")
    parser.add_argument("--size", nargs=2, type=int, default=[336, 504], help="height and width")
    parser.add_argument("--frames", type=int, default=100, help="a row is the median of")
    parser.add_argument("--processes", type=int, default=8, help="rows built side by side")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no row is begun after this")
    options = parser.parse_args()
    options.size, options.deadline = tuple(options.size), time.time() + options.seconds
    return options


if __name__ == "__main__":
    main()
