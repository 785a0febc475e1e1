"""The GPU tables of docs/performance.md in one command: python scripts/bench_gpu.py OUTPUT_FOLDER.

Engines are built side by side, one process a row; then every row is measured alone in a fresh process, which also gives the time of a
second start. A row that fails is reported and skipped.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from da3_core.engines import make_engine
from da3_core.engines.bench import Case, Row, bench_window, random_model, table
from da3_core.model import load_model, save_model

SIZE = (336, 504)
TARGET_MS = {
    ("da3-small", 1): 1.1,
    ("da3-small", 4): 1.6,
    ("da3-small", 8): 2.5,
    ("da3-small", 16): 5.0,
    ("da3-base", 1): 1.5,
    ("da3-base", 4): 2.5,
    ("da3-base", 8): 4.5,
    ("da3-base", 16): 10.0,
    ("da3-large", 1): 3.0,
    ("da3-large", 4): 6.0,
    ("da3-large", 8): 11.0,
    ("da3-large", 16): 24.0,
}
PROFILED = {("da3-small", 1), ("da3-small", 8), ("da3-large", 8)}
ROW_TIMEOUT_S = 400
ATTENTION_SHAPES = ((6, 8), (6, 16), (12, 8), (16, 8), (16, 16))  # heads, views


@dataclass(frozen=True)
class Job:
    """A row to be measured."""

    model: str
    case: Case

    @property
    def name(self) -> str:
        kind = "-all" if self.case.all_wanted else "-posed" if self.case.posed else ""
        return f"{self.model}-{self.case.views}{kind}"


def jobs(options: argparse.Namespace) -> list[Job]:
    rows = [Job(model, Case(options.size, views)) for model in options.models for views in options.views]
    posed = [Job(model, Case(options.size, views, posed=True)) for model in options.models for views in options.posed_views]
    offline = [Job(model, Case(options.size, views, all_wanted=True)) for model in options.models for views in options.offline_views]
    return [*rows, *posed, *offline]


def main() -> None:
    options = _options()
    if options.row:
        run_row(options)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    chip = _attempt("machine", machine)
    report: dict[str, Any] = {"machine": chip, "attention_ms": _attempt("attention", attention_ms), "rows": []}
    for model in options.models:
        _attempt(model, lambda model=model: save_model(random_model(model), options.work / model))
    rows = jobs(options)
    print(f"models written at {time.monotonic() - started:.0f} s; building {len(rows)} rows", flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(lambda job: start_row(options, job, build_only=True), rows))
    print(f"built at {time.monotonic() - started:.0f} s", flush=True)
    for job in rows:
        if time.monotonic() - started > options.seconds:
            print(f"no time left for {job.name}", flush=True)
        elif result := start_row(options, job, build_only=False):
            report["rows"].append(result)
            print(summary(result, chip), flush=True)
            (options.output / "bench_gpu.json").write_text(json.dumps(report, indent=1))
    for result in report["rows"]:
        if (result["row"]["model"], result["row"]["views"]) in PROFILED and not result["row"]["posed"]:
            print_kernels(result)
    print(json.dumps(chip))
    print(table([Row(**result["row"]) for result in report["rows"]]))
    print(f"done at {time.monotonic() - started:.0f} s")


def summary(result: dict[str, Any], chip: dict[str, float] | None) -> str:
    """One line: measured, target, share of the roofline, start-up."""
    row = Row(**result["row"])
    target = TARGET_MS.get((row.model, row.views)) if row.wanted == 1 else None
    floor_ms = max(row.gflop / chip["matmul_tflops"], row.weights_mb / chip["copy_gb_s"]) if chip else float("nan")
    verdict = "" if target is None else f"target {target} {'met' if row.frame_ms <= target else 'MISSED'}, "
    return (
        f"{row.model} N={row.views} wanted={row.wanted} posed={row.posed}: {row.frame_ms:.2f} ms, {verdict}"
        f"{row.views * 1e3 / row.frame_ms:.0f} views/s, gpu busy {result['gpu_ms']:.2f} ms, {row.gflop:.0f} GFLOP, "
        f"floor {floor_ms:.2f} ms, start {result['start_s']:.1f} s (engine {row.prepare_s:.1f}), "
        f"{row.memory_mb:.0f} MB, error {row.depth_error:.1e}; {row.description}"
    )


def print_kernels(result: dict[str, Any]) -> None:
    print(f"\n{result['row']['model']} N={result['row']['views']}: kernels, launches and microseconds a frame")
    for name, us in list(result["kernels_us"].items())[:25]:
        print(f"{us:8.1f}  {name}")


def start_row(options: argparse.Namespace, job: Job, build_only: bool) -> dict[str, Any] | None:
    """Runs a row in a process of its own and reads its figures; the end of what it says is printed where it fails."""
    log, figures = (options.work / f"{job.name}.{end}" for end in ("log", "json"))
    figures.unlink(missing_ok=True)
    command = [sys.executable, __file__, *sys.argv[1:], "--row", job.name, *(["--build-only"] if build_only else [])]
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "4", "STARTED": str(time.time())}
    try:
        with log.open("w") as file:
            subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, timeout=ROW_TIMEOUT_S, check=True)
    except subprocess.SubprocessError as error:
        print(f"{error}\n" + "\n".join(log.read_text().splitlines()[-25:]), flush=True)
    return json.loads(figures.read_text()) if figures.is_file() else None


def run_row(options: argparse.Namespace) -> None:
    """The child process: builds, or measures and writes the figures."""
    job = next(job for job in jobs(options) if job.name == options.row)
    model: Any = load_model(options.work / job.model)
    result = first_depth(options, job, model)
    gc.collect()
    torch.cuda.empty_cache()
    if not options.build_only:
        row = bench_window(model, job.model, options.engine, job.case, device=options.device, frames=options.frames)
        (options.work / f"{job.name}.json").write_text(json.dumps({"row": dataclasses.asdict(row), **result}, indent=1))


def first_depth(options: argparse.Namespace, job: Job, model: Any) -> dict[str, Any]:
    """Seconds from the process's start to the first depth, and where a frame's time goes."""
    engine: Any = make_engine(options.engine, model, options.device, job.case.views)
    windows = [window for window, _ in zip(job.case.windows(), range(12), strict=False)]
    engine.prepare(job.case.size, len(job.case.wanted))
    engine.infer(windows[0], job.case.wanted, job.case.posed)
    start_s = time.time() - float(os.environ["STARTED"])
    print(engine.programs.description)
    if options.build_only or not torch.cuda.is_available():
        return {"start_s": start_s, "gpu_ms": float("nan"), "kernels_us": {}}
    gpu_ms, kernels = kernel_times([lambda window=window: engine.predict(window, job.case.wanted, job.case.posed) for window in windows])
    return {"start_s": start_s, "gpu_ms": gpu_ms, "kernels_us": kernels}


def kernel_times(runs: list[Callable[[], object]]) -> tuple[float, dict[str, float]]:
    """Milliseconds that the GPU is busy in a frame, and microseconds a frame of the kernels that take longest."""
    runs[0]()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for run in runs[1:]:
            run()
        torch.cuda.synchronize()
    frames = len(runs) - 1
    kernels = [event for event in profile.key_averages() if str(event.device_type).endswith("CUDA")]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    longest = {f"{event.count / frames:.0f} x {event.key[:110]}": event.self_device_time_total / frames for event in kernels[:40]}
    return sum(event.self_device_time_total for event in kernels) / frames / 1e3, longest


def machine() -> dict[str, Any]:
    """What the chip reaches: a large product of random bf16 matrices, and a large copy, reads and writes counted."""
    if not torch.cuda.is_available():
        return {"name": "cpu", "torch": torch.__version__, "matmul_tflops": 1.0, "copy_gb_s": 10.0}
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    x = torch.empty(2**32, device="cuda", dtype=torch.uint8)
    y = torch.empty_like(x)
    return {
        "name": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "matmul_tflops": 2 * 8192**3 / _event_ms(lambda: a @ b) / 1e9,
        "copy_gb_s": 2 * x.numel() / _event_ms(lambda: y.copy_(x)) / 1e6,
    }


def attention_ms() -> dict[str, float]:
    """Cross-view attention, by each of PyTorch's kernels."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    times = {}
    for heads, views in ATTENTION_SHAPES if torch.cuda.is_available() else ():
        length = views * (1 + SIZE[0] * SIZE[1] // 196)
        q, k, v = torch.randn(3, 1, length, heads, 64, device="cuda", dtype=torch.bfloat16).transpose(2, 3).unbind()
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            with sdpa_kernel(backend):
                ms = _event_ms(lambda q=q, k=k, v=v: torch.nn.functional.scaled_dot_product_attention(q, k, v))
            name = f"{heads} heads, {views} views, {backend.name}"
            times[name] = ms
            print(f"{name}: {ms:.3f} ms, {4 * length**2 * heads * 64 / ms / 1e9:.0f} TFLOP/s", flush=True)
    return times


def _event_ms(run: Callable[[], object], repeats: int = 10) -> float:
    for _ in range(3):
        run()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeats


def _attempt(what: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Exception:
        print(f"{what} failed:\n{traceback.format_exc()}", flush=True)
        return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for bench_gpu.json")
    parser.add_argument("--models", nargs="+", default=["da3-small", "da3-base", "da3-large"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "da3_bench", help="folder for weights and logs")
    parser.add_argument("--views", nargs="*", type=int, default=(1, 4, 8, 16), help="windows that one view enters")
    parser.add_argument("--posed-views", nargs="*", type=int, default=(8,), help="the same with given cameras")
    parser.add_argument("--offline-views", nargs="*", type=int, default=(32,), help="windows of new views, all wanted")
    parser.add_argument("--engine", default="compiled")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", nargs=2, type=int, default=SIZE)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--processes", type=int, default=8, help="rows built side by side")
    parser.add_argument("--seconds", type=float, default=520, help="no row is begun after this")
    parser.add_argument("--row", help="internal: run this row only")
    parser.add_argument("--build-only", action="store_true", help="internal")
    options = parser.parse_args()
    options.size = tuple(options.size)
    return options


if __name__ == "__main__":
    main()
