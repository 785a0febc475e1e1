"""Weights on disk: published checkpoints, our own, and random ones.

Names inside a checkpoint are the published ones; `checkpoint_name` is the one place that knows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from da3_core.model.da3 import AnyView, Mono
from da3_core.model.nested import Nested
from da3_core.model.presets import (
    HUB_REPOSITORIES,
    JOINED,
    PRESETS,
    AnyViewConfig,
    ModelConfig,
    MonoConfig,
    NestedConfig,
    architecture_from_config,
    config_from_architecture,
)

Model = AnyView | Mono | Nested

BUILT_IN_WEIGHTS = Path(__file__).parents[1] / "weights"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


class CheckpointError(ValueError):
    """A checkpoint cannot be found, read, or fitted to its network. The text says what to do about it."""


def load_model(
    source: str | Path,
    weights: Literal["auto"] | None = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> Model:
    """A network ready for inference.

    source: a preset ("da3-small"), a repository on the Hub ("depth-anything/DA3-SMALL"), or a folder with `config.json` (with "model_name"
    or "architecture") and `model.safetensors`. A preset takes the weights that come with this package, else those on the Hub.
    weights=None gives random ones. revision and cache_dir are the Hub's. Raises CheckpointError.
    """
    if weights is None:
        return build_model(_config_without_weights(source)).to(device, dtype).eval()
    if str(source) in JOINED:
        any_view, metric = (load_model(part, weights, device, dtype, revision, cache_dir) for part in JOINED[str(source)])
        return join_models(any_view, metric).eval()
    folder = _find(source, revision, cache_dir)
    with torch.device("meta"):
        model = build_model(read_config(folder))
    _load_weights(model, folder / WEIGHTS_FILE, device, dtype)
    return model.eval()


def build_model(config: ModelConfig) -> Model:
    """The network of these sizes, with random weights."""
    if isinstance(config, AnyViewConfig):
        return AnyView(config)
    return Mono(config) if isinstance(config, MonoConfig) else Nested(config)


def join_models(any_view: Model, metric: Model) -> Nested:
    """The nested network of two trained ones, which it shares its weights with. Raises ValueError when they are of other kinds."""
    if not isinstance(any_view, AnyView) or not isinstance(metric, Mono) or not metric.config.metric:
        raise ValueError("a nested network is made of an any-view and a metric one, in this order")
    with torch.device("meta"):
        nested = Nested(NestedConfig(any_view.config, metric.config))
    nested.any_view, nested.metric = any_view, metric
    return nested


def save_model(model: Model, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes a folder that `load_model` reads, in `dtype` or in the model's own; files already there give way to whole ones only."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {checkpoint_name(name): p.detach().to("cpu", dtype).contiguous() for name, p in model.named_parameters()}
    part = folder / (WEIGHTS_FILE + ".part")
    save_file(tensors, part, metadata={"format": "pt"})
    part.replace(folder / WEIGHTS_FILE)
    part = folder / (CONFIG_FILE + ".part")
    part.write_text(json.dumps(_config_as_json(model.config), indent=1) + "\n")
    part.replace(folder / CONFIG_FILE)


def init_backbone_from_dinov2(model: AnyView | Mono, path: str | Path) -> None:
    """Starts the backbone from DINOv2 weights of its size, a safetensors file with DINOv2's own names.

    What DINOv2 has not (camera tokens, query and key normalisation) stays as it is. Raises CheckpointError.
    """
    ours_alone = re.compile(r"camera_token|.*\.attn\.[qk]_norm\..*")
    parameters = {name: p for name, p in model.backbone.named_parameters() if not ours_alone.fullmatch(name)}
    slots = {
        name: Slot([checkpoint_name("backbone." + name).removeprefix("model.backbone.pretrained.")], p.shape)
        for name, p in parameters.items()
    }
    tensors = _read_tensors(Path(path), slots, "cpu", ignore={"mask_token"})
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def checkpoint_name(name: str) -> str:
    """The published name of one of our parameters."""
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return "model." + name


_RENAMES: Sequence[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\bany_view\.", "da3."),
        (r"^metric\.", "da3_metric."),
        (r"\bbackbone\.", "backbone.pretrained."),
        (r"\bpatch_embed\.", "patch_embed.proj."),
        (r"\bcamera_encoder\.", "cam_enc."),
        (r"\bcamera_decoder\.fc1\.", "cam_dec.backbone.0."),
        (r"\bcamera_decoder\.fc2\.", "cam_dec.backbone.2."),
        (r"\bcamera_decoder\.translation\.", "cam_dec.fc_t."),
        (r"\bcamera_decoder\.quaternion\.", "cam_dec.fc_qvec."),
        (r"\bcamera_decoder\.fov\.", "cam_dec.fc_fov.0."),
        (r"\bgaussian_head\.", "gs_head."),
        (r"\bpyramid\.projects\.", "projects."),
        (r"\bpyramid\.resizes\.", "resize_layers."),
        *((rf"\bpyramid\.laterals\.{k}\.", f"scratch.layer{k + 1}_rn.") for k in range(4)),
        *((rf"\b(depth_)?fusion\.levels\.{k}\.", f"scratch.refinenet{k + 1}.") for k in range(4)),
        *((rf"\bray_fusion\.levels\.{k}\.", f"scratch.refinenet{k + 1}_aux.") for k in range(4)),
        (r"(refinenet\w+)\.lateral_unit\.", r"\1.resConfUnit1."),
        (r"(refinenet\w+)\.unit\.", r"\1.resConfUnit2."),
        (r"(refinenet\w+)\.out\.", r"\1.out_conv."),
        (r"\b(depth_)?neck\.", "scratch.output_conv1."),
        (r"\b(depth_output|output)\.conv\.", "scratch.output_conv2.0."),
        (r"\b(depth_output|output)\.out\.", "scratch.output_conv2.2."),
        (r"\bsky_output\.conv\.", "scratch.sky_output_conv2.0."),
        (r"\bsky_output\.out\.", "scratch.sky_output_conv2.2."),
        *((rf"\bimage_convs\.{k}\.", f"images_merger.{2 * k}.") for k in range(3)),
        (r"\bray_necks\.", "scratch.output_conv1_aux."),
        (r"\bray_outputs\.(\d)\.conv\.", r"scratch.output_conv2_aux.\1.0."),
        (r"\bray_outputs\.(\d)\.norm\.", r"scratch.output_conv2_aux.\1.2."),
        (r"\bray_outputs\.(\d)\.out\.", r"scratch.output_conv2_aux.\1.5."),
    ]
]


def read_config(folder: Path) -> ModelConfig:
    """The sizes of the checkpoint in a folder. Raises CheckpointError."""
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_text())
        if "architecture" in content:
            return config_from_architecture(content["architecture"])
        return PRESETS[content["model_name"]]
    except (FileNotFoundError, NotADirectoryError):
        remedy = f"give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or one of {', '.join(PRESETS)}"
        raise CheckpointError(f"{folder} has no {CONFIG_FILE}: {remedy}") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): download or save the checkpoint again") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = f'it needs "model_name", one of {", ".join(PRESETS)}, or a whole "architecture"'
        raise CheckpointError(f"{path} describes no network that is known ({error!r}): {remedy}") from None


def _config_as_json(config: ModelConfig) -> dict[str, Any]:
    for name, preset in PRESETS.items():
        if preset == config:
            return {"model_name": name}
    return {"architecture": architecture_from_config(config)}


def _config_without_weights(source: str | Path) -> ModelConfig:
    presets = {repository: name for name, repository in HUB_REPOSITORIES.items()}
    name = presets.get(str(source), str(source))
    return PRESETS[name] if name in PRESETS else read_config(Path(source))


def _find(source: str | Path, revision: str | None, cache_dir: str | Path | None) -> Path:
    """The folder of a checkpoint, downloaded if need be."""
    name = str(source)
    if name in PRESETS and (BUILT_IN_WEIGHTS / name).is_dir():
        return BUILT_IN_WEIGHTS / name
    if name in PRESETS and name not in HUB_REPOSITORIES:
        raise CheckpointError(
            f"{name} has no published weights and none came with this package: give a folder, or weights=None for random ones"
        )
    if name not in PRESETS and (isinstance(source, Path) or Path(source).is_dir()):
        return Path(source)
    repository = HUB_REPOSITORIES.get(name, name)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise CheckpointError(f"{name} is no folder, no repository on the Hub and no preset: presets are {', '.join(PRESETS)}")
    return _download(repository, revision, cache_dir)


def _download(repository: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]  # of whichever client it uses

    try:
        files = [hf_hub_download(repository, file, revision=revision, cache_dir=cache_dir) for file in (CONFIG_FILE, WEIGHTS_FILE)]
    except (HTTPError, EntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"cannot get {repository} from the Hub ({reason}), and there is no folder of that name. Check name, revision and connection; "
            f"without a connection, run `hf download {repository} --local-dir FOLDER` where there is one, and give the folder"
        ) from error
    return Path(files[0]).parent


class Slot(NamedTuple):
    """A parameter to be filled from a file: the names it may have there, any one of which is enough."""

    names: Sequence[str]
    shape: torch.Size


def _load_weights(model: Model, path: Path, device: torch.device | str, dtype: torch.dtype) -> None:
    """Fills a model without storage. Strict; only the rays' normalisation has several names, and checkpoints carry one or all of them."""
    aliases: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(p), []).append(checkpoint_name(name))
    slots = {name: Slot(aliases[id(p)], p.shape) for name, p in model.named_parameters()}
    tensors = _read_tensors(path, slots, device)
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, strict=False, assign=True)


def _read_tensors(path: Path, slots: Mapping[str, Slot], device: torch.device | str, ignore: Set[str] = frozenset()) -> dict[str, Tensor]:
    """The tensor of every slot. Raises CheckpointError naming those at fault."""
    if not path.is_file():
        raise CheckpointError(
            f"there is no {path}: weights are read from safetensors only, convert others with safetensors.torch.save_file"
        )
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            shapes = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            faults = _faults(shapes, slots, ignore)
            if faults:
                raise CheckpointError(f"{path} is of another network: {faults}. Give the preset or config.json that it was saved with")
            return {ours: file.get_tensor(next(n for n in slot.names if n in shapes)) for ours, slot in slots.items()}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}): delete it, then download or save it again") from error


def _faults(shapes: Mapping[str, torch.Size], slots: Mapping[str, Slot], ignore: Set[str]) -> str:
    """What is wrong with a file of tensors of these shapes, empty when nothing is."""
    known = {name: slot.shape for slot in slots.values() for name in slot.names}
    kinds = {
        "missing": [slot.names[0] for slot in slots.values() if shapes.keys().isdisjoint(slot.names)],
        "unknown": sorted(shapes.keys() - known.keys() - ignore),
        "of another shape": [f"{n} {[*shapes[n]]} for {[*known[n]]}" for n in known if n in shapes and shapes[n] != known[n]],
    }
    return "; ".join(f"{len(names)} {kind} ({', '.join(names[:3])}{', …' * (len(names) > 3)})" for kind, names in kinds.items() if names)
