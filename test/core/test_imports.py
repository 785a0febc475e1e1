"""What importing the package brings along: a start pays for it, also where nothing needs it."""

from __future__ import annotations

import subprocess
import sys

BUILDERS = {"torch._dynamo", "torch._inductor", "torch.onnx._internal.exporter._core", "sympy"}  # seconds, to build or load packages
OPTIONAL = {
    "onnx",
    "onnxscript",
    "onnxruntime",
    "tensorrt",
    "open3d",
    "rosbags",
    "rerun",
    "gsplat",
    "scipy",
    "matplotlib",
    "huggingface_hub",
}


def imported_by(statement: str) -> set[str]:
    """Names of the modules that a new process has after a statement."""
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout.split())


def test_the_core_imports_nothing_that_builds_packages_and_nothing_optional() -> None:
    found = imported_by("import da3_core")
    assert "da3_core.engines.compiled" in found
    assert found & (BUILDERS | OPTIONAL) == imported_by("import torch") & (BUILDERS | OPTIONAL)


def test_the_command_speaks_before_pytorch_is_there() -> None:
    assert "torch" not in imported_by("import da3_ros.cli")
