"""What pip installs: everything below the two packages, and the messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def files_below(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


def test_all_code_weights_and_messages_are_installed(tmp_path: Path) -> None:
    build = ("egg_info", "--egg-base", tmp_path, "build_py", "--build-lib", tmp_path / "lib")
    subprocess.run([sys.executable, "setup.py", "--quiet", *build], cwd=ROOT, check=True)
    code = {package / path for package in (Path("da3_core"), Path("da3_ros")) for path in files_below(ROOT / package)}
    messages = {Path("da3_ros/msg") / path for path in files_below(ROOT / "msg")}
    assert files_below(tmp_path / "lib") == code | messages
