"""Seconds from a process's start to its first depth: python scripts/start_up.py [--model da3-nano] [--views 4] [--size 336 504].

Each start is a new process; the first may find caches empty, the later ones find them as the first left them. What the engine costs is
split: for each part, in the order of preparing, what it takes to find or build and to load it, and for each window to record it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    options = _options()
    if options.child:
        print(json.dumps(start(options)))
        return
    starts = []
    for i in range(options.starts):
        command = [sys.executable, __file__, *sys.argv[1:], "--child"]
        started = time.time()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        report = json.loads(done.stdout.splitlines()[-1])
        steps = {name: round(b - a, 2) for (_, a), (name, b) in pairwise([("", started), *report["marks"]])}
        first = round(dict(report["marks"])["first depth"] - started, 2)
        starts.append({**steps, "until the first depth": first, "of the engine": report["costs"], "description": report["description"]})
        print(f"start {i + 1}: {starts[-1]}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(starts, indent=1))


def start(options: argparse.Namespace) -> dict[str, Any]:
    """What a node does until its first depth, and after that until all is as fast as it gets; times of day."""
    marks = []

    def mark(name: str) -> None:
        marks.append((name, time.time()))

    sys.setswitchinterval(1e-4)  # as the node does

    import torch

    mark("import torch")
    import da3_core.engines.choice
    from da3_core import load_model, make_engine, wake_up
    from da3_core.engines import compiled
    from da3_core.engines.bench import Case
    from da3_core.engines.cache import ArtifactCache
    from da3_core.engines.recorded import Recording

    mark("import da3")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mark("find the device")
    wake_up(device)
    model = load_model(options.model)
    mark("read the weights")
    costs = Costs()
    costs.measure(da3_core.engines.choice, "copy_on")
    costs.measure(ArtifactCache, "__init__", "digest of the weights")
    engine: Any = make_engine(options.engine, model, device, options.views, at_once=True)
    mark("make the engine")
    costs.measure(ArtifactCache, "get", "find or build")
    costs.measure(compiled, "_load", "load")
    costs.measure(compiled.Packages, "_arguments", "arguments")
    costs.measure(Recording, "__init__", "record")
    engine.prepare(tuple(options.size))
    mark("prepare")
    windows = Case(tuple(options.size), options.views).windows()
    engine.infer(next(windows)[:1], [0], False)
    mark("first depth")
    engine.infer(next(windows), [options.views - 1], False)
    mark("first full window")
    while engine.programs.is_loading:
        engine.infer(next(windows), [options.views - 1], False)
    mark("all loaded")
    for _ in range(2):
        engine.infer(next(windows), [options.views - 1], False)
    mark("recorded")
    return {"marks": marks, "costs": costs.seconds, "description": engine.description}


class Costs:
    """Seconds in functions, call by call; those of what they call included."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def measure(self, owner: Any, function: str, name: str | None = None) -> None:
        """From now on."""
        called, spent = getattr(owner, function), self.seconds.setdefault(name or function, [])

        def measured(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return called(*args, **kwargs)
            finally:
                spent.append(round(time.perf_counter() - started, 3))

        setattr(owner, function, measured)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="da3-nano", help="preset or folder")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", nargs=2, type=int, default=(336, 504))
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help="internal")
    return parser.parse_args()


if __name__ == "__main__":
    main()
