"""What engines build, kept on disk: a folder an artifact, written under a temporary name, with a note of what it was made for."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from da3_core.engines.backend import ProgramError

NOTE = "made_for.json"
UNFINISHED = ".unfinished-"  # begins the name of a folder that is being written
LONGEST_BUILD_S = 86_400.0
READ_BYTES = 1 << 22
DIGESTED_BYTES = 1 << 20  # of each tensor: other weights differ everywhere

logger = logging.getLogger(__name__)


def default_folder() -> Path:
    """$DA3_CACHE_DIR, else da3 in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("DA3_CACHE_DIR"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "da3"


class ArtifactCache:
    """Artifacts of one model. Where `rebuild` is set, those that there are already are made anew, each of them once."""

    def __init__(self, model: nn.Module, folder: Path | None = None, rebuild: bool = False) -> None:
        self.folder = (folder or default_folder()) / "engines"
        self._rebuild = rebuild
        self._made: set[Path] = set()
        self._model = model_digest(model)

    def get(
        self, part: nn.Module, inputs: Sequence[Tensor], file: str, made_for: Mapping[str, str], make: Callable[[Path], object]
    ) -> Path:
        """Path of the `file` for this part, with inputs like these.

        `make` writes it, with what belongs to it beside it, where there is none, or one made for something else than `made_for`
        (versions, device) and our own code, or a damaged one: the log says what. Raises ProgramError where nothing can be written.
        """
        folder, made_for = self._folder(part, inputs, file), _with_versions(made_for)
        asked_to = self._rebuild and folder not in self._made
        try:
            if reason := "it is asked for" if asked_to else _stale(folder, made_for):
                logger.info("building %s: %s", folder, reason)
                _write(folder, file, made_for, make, replace=asked_to)
                self._made.add(folder)
        except PermissionError as error:
            raise ProgramError(f"{error}: set DA3_CACHE_DIR to a folder that you may read and write, or have its owner let you") from error
        except OSError as error:
            raise ProgramError(f"{error}: set DA3_CACHE_DIR to a folder with room that can be written") from error
        return folder / file

    def has(self, part: nn.Module, inputs: Sequence[Tensor], file: str, made_for: Mapping[str, str]) -> bool:
        """Whether `get` would build nothing."""
        folder = self._folder(part, inputs, file)
        try:
            return not (self._rebuild and folder not in self._made) and _stale(folder, _with_versions(made_for)) is None
        except OSError:  # another process is replacing it, or it cannot be read: `get` will say
            return False

    def _folder(self, part: nn.Module, inputs: Sequence[Tensor], file: str) -> Path:
        return self.folder / "-".join([artifact_name(part, inputs), self._model, file.replace(".", "-")])


def artifact_name(part: nn.Module, inputs: Sequence[Tensor]) -> str:
    """Readable and unique: the part, the image size and precision that it is made for, and its inputs' shapes."""
    precision = str(next(part.parameters()).dtype).removeprefix("torch.")
    shapes = "_".join("x".join(map(str, x.shape)) for x in inputs)
    size = "x".join(map(str, getattr(part, "size", ())))
    return "-".join(filter(None, [type(part).__name__, size, precision, shapes]))


def model_digest(model: nn.Module) -> str:
    """A checksum of the configuration, and of the weights' names, shapes and values."""
    checksum = zlib.crc32(repr(getattr(model, "config", None)).encode())
    for name, tensor in model.state_dict().items():
        start = tensor.detach().flatten().view(torch.uint8)[:DIGESTED_BYTES].cpu().numpy()
        checksum = zlib.crc32(start, zlib.crc32(f"{name} {tuple(tensor.shape)}".encode(), checksum))
    return f"{checksum:08x}"


@functools.cache
def code_digest() -> str:
    """A checksum of the code that says what a network computes."""
    core = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*(core / "model").glob("*.py"), *(core / "geometry").glob("*.py"), *(core / "engines").glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _with_versions(made_for: Mapping[str, str]) -> dict[str, str]:
    return {"code": code_digest(), "torch": torch.__version__, **made_for}


def _stale(folder: Path, made_for: Mapping[str, str]) -> str | None:
    """Why the artifact in this folder cannot be used."""
    if not (folder / NOTE).is_file():
        return "it is not there yet"
    try:
        note = json.loads((folder / NOTE).read_text())
    except ValueError:
        return f"{NOTE} is damaged"
    changes = [f"{key} was {note.get(key)}, is {value}" for key, value in made_for.items() if note.get(key) != value]
    return "; ".join(changes) or ("a file is damaged" if note["files"] != _checksums(folder) else None)


def _checksums(folder: Path) -> dict[str, int]:
    """Of every file beside the note."""
    return {path.name: _checksum(path) for path in folder.iterdir() if path.name != NOTE}


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _write(folder: Path, file: str, made_for: Mapping[str, str], make: Callable[[Path], object], replace: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_what_was_killed(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=UNFINISHED, ignore_cleanup_errors=True) as unfinished:
        made = Path(unfinished) / folder.name
        made.mkdir(mode=0o755)  # a temporary directory is its owner's alone; what lies in it when it is whole is for all that umask lets
        make(made / file)
        (made / NOTE).write_text(json.dumps({**made_for, "files": _checksums(made)}, indent=1))
        for path in made.iterdir():
            path.chmod((made / NOTE).stat().st_mode & 0o644)  # safetensors are their owner's alone, too
        if replace or _stale(folder, made_for):  # else another process was faster
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)


def _remove_what_was_killed(parent: Path) -> None:
    """Leftovers of builds that cannot be running any more."""
    for unfinished in parent.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):  # another process is at it, or it is another user's
            if time.time() - unfinished.stat().st_mtime > LONGEST_BUILD_S:
                shutil.rmtree(unfinished)
