"""What engines build is kept, found again, and built anew where it cannot be trusted."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from da3_core.engines.backend import ProgramError
from da3_core.engines.cache import NOTE, ArtifactCache, default_folder
from da3_core.model.presets import BackboneConfig

FILE, MADE_FOR, INPUTS = "part.bin", {"device": "mine"}, [torch.zeros(2, 3)]


class Builder:
    """Writes an artifact of two files and counts how often."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self, path: Path) -> None:
        self.built += 1
        path.write_bytes(b"code" * 1000)
        path.with_name("beside.bin").write_bytes(b"weights" * 1000)


def network(scale: float = 1.0) -> nn.Module:
    part = nn.Linear(3, 4)
    nn.init.constant_(part.weight, scale)
    nn.init.constant_(part.bias, 0)
    return part


def test_it_is_built_once_and_written_whole(tmp_path: Path) -> None:
    build, part = Builder(), network()
    paths = {ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, build) for _ in range(2)}
    assert build.built == 1 and len(paths) == 1
    assert sorted(path.name for path in (tmp_path / "engines").glob("*/*")) == ["beside.bin", NOTE, FILE]


@pytest.mark.parametrize("damaged", [FILE, "beside.bin", NOTE])
@pytest.mark.parametrize("how", ["a changed byte", "cut", "gone"])
def test_a_damaged_artifact_is_built_anew(tmp_path: Path, damaged: str, how: str) -> None:
    build, part = Builder(), network()
    path = ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, build).with_name(damaged)
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if how == "cut" else b"\0" + whole[1:])
    path = ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, build)
    assert build.built == 2 and path.read_bytes() == b"code" * 1000
    ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, build)
    assert build.built == 2


def test_networks_that_differ_in_their_configuration_only_have_artifacts_of_their_own(tmp_path: Path) -> None:
    build = Builder()
    for first_layer in (1, 2, 1):
        part = network()
        part.config = BackboneConfig(embed_dim=3, depth=4, heads=1, out_layers=(first_layer, 2, 3, 3))  # type: ignore[assignment]
        ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, build)
    assert build.built == 2


def test_it_has_what_get_would_not_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, part = Builder(), network()
    cache = ArtifactCache(part, tmp_path)
    assert not cache.has(part, INPUTS, FILE, MADE_FOR)
    path = cache.get(part, INPUTS, FILE, MADE_FOR, build)
    assert cache.has(part, INPUTS, FILE, MADE_FOR) and not cache.has(part, INPUTS, FILE, {"device": "another"})
    assert not ArtifactCache(part, tmp_path, rebuild=True).has(part, INPUTS, FILE, MADE_FOR)

    def taken_away(path: Path) -> int:
        raise FileNotFoundError(path)

    monkeypatch.setattr("da3_core.engines.cache._checksum", taken_away)  # by another process that replaces it
    assert path.is_file() and not cache.has(part, INPUTS, FILE, MADE_FOR)


@pytest.mark.parametrize("key", ["device", "torch", "code"])
def test_what_was_made_for_something_else_is_built_anew(tmp_path: Path, key: str) -> None:
    build, part = Builder(), network()
    note = ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, build).with_name(NOTE)
    note.write_text(json.dumps({**json.loads(note.read_text()), key: "other"}))
    ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, build)
    assert build.built == 2


def test_what_is_there_is_built_anew_once_where_that_is_asked_for(tmp_path: Path) -> None:
    build, part = Builder(), network()
    ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, build)
    cache = ArtifactCache(part, tmp_path, rebuild=True)
    paths = {cache.get(part, INPUTS, FILE, MADE_FOR, build) for _ in range(2)}
    assert build.built == 2 and [path.read_bytes() for path in paths] == [b"code" * 1000]


def test_other_weights_and_other_shapes_lie_beside_each_other(tmp_path: Path) -> None:
    build = Builder()
    paths = set()
    for part in (network(1.0), network(1.5)):
        for shape in ((2, 3), (4, 3)):
            paths.add(ArtifactCache(part, tmp_path).get(part, [torch.zeros(shape)], FILE, MADE_FOR, build))
    assert build.built == len(paths) == 4 and all(path.is_file() for path in paths)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise ProgramError("no compiler")

    part = network()
    with pytest.raises(ProgramError, match="no compiler"):
        ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, fail)
    assert not list((tmp_path / "engines").iterdir())


def test_what_was_killed_long_ago_is_removed_and_what_may_be_running_is_not(tmp_path: Path) -> None:
    part = network()
    killed, running = (tmp_path / "engines" / f".unfinished-{name}" for name in ("killed", "running"))
    for folder in (killed, running):
        folder.mkdir(parents=True)
        (folder / FILE).write_bytes(b"half of it")
    os.utime(killed, (0, 0))
    ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, Builder())
    assert running.exists() and not killed.exists()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o000, 0o755)])
def test_others_may_read_it_where_umask_lets_them_and_never_write(tmp_path: Path, umask: int, mode: int) -> None:
    part, before = network(), os.umask(umask)
    try:
        path = ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, lambda path: save_file({"x": torch.zeros(1)}, path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == mode
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {mode & 0o644}


def test_a_folder_that_is_another_users_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> str:
        raise PermissionError("Permission denied: made_for.json")

    monkeypatch.setattr("da3_core.engines.cache._stale", forbidden)
    part = network()
    with pytest.raises(ProgramError, match=r"denied: made_for.json: set DA3_CACHE_DIR to a folder that you may read and write"):
        ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, Builder())


def test_a_folder_that_cannot_be_written_says_what_helps(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("a file where the folder should be")
    part = network()
    with pytest.raises(ProgramError, match="set DA3_CACHE_DIR"):
        ArtifactCache(part, tmp_path).get(part, INPUTS, FILE, MADE_FOR, Builder())


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv("DA3_CACHE_DIR", "/mine")
    assert default_folder() == Path("/mine")
    monkeypatch.delenv("DA3_CACHE_DIR")
    assert default_folder() == Path("/caches/da3")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "da3"
