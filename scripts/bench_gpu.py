"""The GPU tables of docs/performance.md in one command: python scripts/bench_gpu.py OUTPUT_FOLDER.

Engines are built side by side, one process a row; then rows are measured one after the other, in one process a model. Whatever is
measured is appended to rows.jsonl at once, whatever fails to errors.txt, and neither stops the rest.
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
from typing import Any, NoReturn

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).parents[1]))

from da3_core.engines import compiled, make_engine
from da3_core.engines.bench import Case, Row, bench_window, random_model, table
from da3_core.engines.programs import ProgramError
from da3_core.engines.roofline import work_of_a_frame
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
H200 = {"matmul_tflops": 794.0, "copy_gb_s": 4280.0}  # where the chip was not measured
PROFILED = 12  # windows
BUILD_THREADS = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "2"}  # several rows at once
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
    offline = [Job("da3-small", Case(options.size, views, all_wanted=True)) for views in options.offline_views]
    return [*rows, *posed, *(job for job in offline if job.model in options.models)]


def main() -> None:
    options = _options()
    if options.attention == "flash":
        compiled.ATTENTION = compiled.ATTENTION[1:]
    if options.just_in_time:
        compiled.Packages.build = no_package  # type: ignore[method-assign]
    if options.child:
        run_child(options)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    chip = attempt(options, "machine", machine)
    (options.work / "chip.json").write_text(json.dumps(chip or H200))
    say(options, {"chip": chip})
    if options.attention_table:
        say(options, {"attention_ms": attempt(options, "attention", attention_ms)})
    torch.cuda.empty_cache() if torch.cuda.is_available() else None
    build(options, started)
    print(f"built at {time.monotonic() - started:.0f} s", flush=True)
    for engine in options.engines:
        for model in options.models:
            measure(options, model, engine, options.seconds - (time.monotonic() - started))
    lines = (options.output / "rows.jsonl").read_text().splitlines()
    rows = [Row(**result["row"]) for result in map(json.loads, lines) if "row" in result]
    print(table(rows))
    print(f"done at {time.monotonic() - started:.0f} s")


def build(options: argparse.Namespace, started: float) -> None:
    """Packages of all rows, of which `options.processes` are built at a time; what is not ready after `options.build_seconds` is left."""
    if "compiled" not in options.engines:
        for model in options.models:
            attempt(options, model, lambda model=model: save_model(random_model(model), options.work / model))
        return
    with concurrent.futures.ThreadPoolExecutor(options.processes) as pool:
        waiting = []
        for model in options.models:
            attempt(options, model, lambda model=model: save_model(random_model(model), options.work / model))
            print(f"{model} written at {time.monotonic() - started:.0f} s", flush=True)
            waiting += [pool.submit(build_rows, options, rows, started) for rows in same_packages(jobs(options)) if rows[0].model == model]
        concurrent.futures.wait(waiting)


def same_packages(rows: list[Job]) -> list[list[Job]]:
    """With poses or without, a window has the same packages."""
    together: dict[tuple[str, Case], list[Job]] = {}
    for job in rows:
        together.setdefault((job.model, dataclasses.replace(job.case, posed=False)), []).append(job)
    return list(together.values())


def build_rows(options: argparse.Namespace, rows: list[Job], started: float) -> None:
    left, name = options.build_seconds - (time.monotonic() - started), rows[0].name
    if left > 0 and run_process(options, f"build-{name}", ["--child", "build", "--row", name], left, BUILD_THREADS):
        print(f"{name} built at {time.monotonic() - started:.0f} s", flush=True)
        for job in rows:
            (options.work / f"{job.name}.built").touch()


def measure(options: argparse.Namespace, model: str, engine: str, seconds: float) -> None:
    """All rows of a model, in a process that is started again behind a row that ends it."""
    names = [job.name for job in jobs(options) if job.model == model and not (options.work / f"{job.name}.{engine}.tried").is_file()]
    deadline = time.time() + seconds
    for name in names:
        if time.time() < deadline and not (options.work / f"{name}.{engine}.tried").is_file():
            extra = ["--child", "measure", "--row", model, "--engines", engine, "--deadline", str(deadline)]
            run_process(options, f"measure-{model}-{engine}", extra, seconds + 10, {})


def run_process(options: argparse.Namespace, name: str, extra: list[str], seconds: float, environment: dict[str, str]) -> bool:
    """Whether it ended well; what it said at last is kept where it did not."""
    log = options.work / f"{name}.log"
    command = [sys.executable, "-X", "faulthandler", __file__, *sys.argv[1:], *extra]
    try:
        with log.open("w") as file:
            environment = {**os.environ, **environment, "STARTED": str(time.time())}
            out = None if "measure" in extra else file
            subprocess.run(command, stdout=out, stderr=file, env=environment, timeout=max(1.0, seconds), check=True)
    except subprocess.SubprocessError as error:
        complain(options, f"{name}: {str(error)[-120:]}", "\n".join(log.read_text().splitlines()[-60:]))
        return False
    return True


def run_child(options: argparse.Namespace) -> None:
    """Builds the row `options.row`, or measures all rows of that model."""
    if options.child == "build":
        job = next(job for job in jobs(options) if job.name == options.row)
        engine: Any = make_engine("compiled", load_model(options.work / job.model), options.device, job.case.views)
        engine.prepare(job.case.size, len(job.case.wanted))
        print(engine.programs.description)
        if engine.programs.refusals:
            complain(options, f"building {job.name}", engine.programs.description)
        return
    model: Any = load_model(options.work / options.row, device=options.device)
    (engine_name,) = options.engines
    for job in (job for job in jobs(options) if job.model == options.row):
        tried = options.work / f"{job.name}.{engine_name}.tried"
        unbuilt = engine_name == "compiled" and not (options.work / f"{job.name}.built").is_file()
        if tried.is_file() or unbuilt or time.time() > options.deadline:
            continue
        tried.touch()
        attempt(options, f"{job.name} by {engine_name}", lambda job=job: measure_row(options, job, model, engine_name))
        gc.collect()
        torch.cuda.empty_cache() if torch.cuda.is_available() else None


def no_package(*_: object) -> NoReturn:
    raise ProgramError("--just-in-time")


def measure_row(options: argparse.Namespace, job: Job, model: Any, engine_name: str) -> None:
    frames = options.frames if not job.case.all_wanted else max(2, options.frames // 5)
    row = bench_window(model, job.model, engine_name, job.case, device=options.device, frames=frames)
    result: dict[str, Any] = {"row": dataclasses.asdict(row)}
    say(options, result)
    chip = json.loads((options.work / "chip.json").read_text())
    case = job.case
    work = work_of_a_frame(model.config, getattr(torch, row.precision), case.size, case.views, case.new, len(case.wanted))
    least_ms = work.least_ms(chip["matmul_tflops"], chip["copy_gb_s"])
    print(summary(row, least_ms), flush=True)
    if torch.cuda.is_available() and options.profile:
        gc.collect()
        gpu_ms, kernels = kernel_times(engine_runs(options, job, model, engine_name))
        print(f"    gpu busy {gpu_ms:.3f} ms in {sum(float(name.split()[0]) for name in kernels):.0f} launches", flush=True)
        say(options, {"name": job.name, "engine": engine_name, "least_ms": least_ms, "gpu_ms": gpu_ms, "kernels_us": kernels})


def engine_runs(options: argparse.Namespace, job: Job, model: Any, engine_name: str) -> list[Callable[[], object]]:
    engine: Any = make_engine(engine_name, model, options.device, job.case.views)
    engine.prepare(job.case.size, len(job.case.wanted))
    windows = [window for window, _ in zip(job.case.windows(), range(3 if job.case.all_wanted else PROFILED), strict=False)]
    return [lambda window=window: engine.predict(window, job.case.wanted, job.case.posed) for window in windows]  # type: ignore[misc]


def summary(row: Row, least_ms: float) -> str:
    """One line: measured, target, share of the roofline."""
    target = TARGET_MS.get((row.model, row.views)) if row.wanted == 1 else None
    verdict = "" if target is None else f"target {target} {'met' if row.frame_ms <= target else 'MISSED'}, "
    return (
        f"{row.model} N={row.views} wanted={row.wanted} posed={row.posed} {row.engine}: {row.frame_ms:.2f} ms, {verdict}"
        f"p95 {row.slowest_ms:.2f}, to host {row.frame_to_host_ms:.2f}, recompute {row.recompute_ms:.1f}, "
        f"{row.wanted * 1e3 / row.frame_ms:.0f} views/s, {row.gflop:.0f} GFLOP, {row.gbyte:.2f} GB, "
        f"least {least_ms:.2f} ms ({100 * least_ms / row.frame_ms:.0f} %), engine {row.prepare_s:.1f} s, "
        f"{row.memory_mb:.0f} MB, error {row.depth_error:.1e}; {row.description[:300]}"
    )


def kernel_times(runs: list[Callable[[], object]]) -> tuple[float, dict[str, float]]:
    """Milliseconds that the GPU is busy in a frame, and microseconds a frame of its kernels, those that take longest first."""
    runs[0]()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for run in runs[1:]:
            run()
        torch.cuda.synchronize()
    frames = len(runs) - 1
    kernels = [event for event in profile.key_averages() if str(event.device_type).endswith("CUDA")]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    longest = {f"{event.count / frames:.1f} x {event.key[:110]}": event.self_device_time_total / frames for event in kernels}
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
    times = {}
    for heads, views in ATTENTION_SHAPES if torch.cuda.is_available() else ():
        length = views * (1 + SIZE[0] * SIZE[1] // 196)
        q, k, v = torch.randn(3, 1, length, heads, 64, device="cuda", dtype=torch.bfloat16).transpose(2, 3).unbind()
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            with sdpa_kernel(backend):
                times[f"{heads} heads, {views} views, {backend.name}"] = _event_ms(
                    lambda q=q, k=k, v=v: torch.nn.functional.scaled_dot_product_attention(q, k, v)  # type: ignore[misc]
                )
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


def say(options: argparse.Namespace, what: dict[str, Any]) -> None:
    with (options.output / "rows.jsonl").open("a") as file:
        file.write(json.dumps(what) + "\n")


def complain(options: argparse.Namespace, what: str, why: str) -> None:
    print(f"FAILED {what}: {why[-600:]}", flush=True)
    with (options.output / "errors.txt").open("a") as file:
        file.write(f"=== {what}\n{why}\n")


def attempt(options: argparse.Namespace, what: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Exception:
        complain(options, what, traceback.format_exc())
        return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder for rows.jsonl and errors.txt")
    parser.add_argument("--models", nargs="+", default=["da3-small", "da3-base", "da3-large"])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "da3_bench", help="folder for weights and logs")
    parser.add_argument("--views", nargs="*", type=int, default=(1, 4, 8, 16), help="windows that one view enters")
    parser.add_argument("--posed-views", nargs="*", type=int, default=(8,), help="the same with given cameras")
    parser.add_argument("--offline-views", nargs="*", type=int, default=(32,), help="windows of new views, all wanted, of da3-small")
    parser.add_argument("--engines", nargs="+", default=["compiled", "eager"], help="eager: PyTorch's kernels, recorded as CUDA graphs")
    parser.add_argument("--attention", choices=["cudnn", "flash"], default="cudnn", help="which to ask for first")
    parser.add_argument("--just-in-time", action="store_true", help="torch.compile, no packages")
    parser.add_argument("--attention-table", action="store_true", help="time both")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", nargs=2, type=int, default=SIZE)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--no-profile", dest="profile", action="store_false")
    parser.add_argument("--processes", type=int, default=8, help="rows built side by side")
    parser.add_argument("--build-seconds", type=float, default=240, help="rows that are not built by then are left out")
    parser.add_argument("--seconds", type=float, default=390, help="no row is begun after this")
    parser.add_argument("--child", choices=["build", "measure"], help="internal")
    parser.add_argument("--row", help="internal")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="internal")
    options = parser.parse_args()
    options.size = tuple(options.size)
    return options


if __name__ == "__main__":
    main()
