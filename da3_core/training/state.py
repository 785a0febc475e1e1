"""A training on disk: enough to continue at exactly the next step."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from da3_core.model import build_model, save_model
from da3_core.model.presets import ModelConfig
from da3_core.training.optimizer import AveragedWeights
from da3_core.training.parallel import full
from da3_core.training.processes import Processes


@dataclass(frozen=True)
class Progress:
    """Where a training is."""

    step: int  # the next one
    seconds: float  # of training so far


def newest_checkpoint(run: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    return max((run / "checkpoint").glob("step-????????"), default=None)


def step_of(checkpoint: Path | None) -> int:
    """The step that it continues at; -1 of none."""
    return int(checkpoint.name.removeprefix("step-")) if checkpoint else -1


def save_state(
    run: Path, progress: Progress, network: nn.Module, optimizers: Sequence[Optimizer], average: AveragedWeights, processes: Processes
) -> None:
    """Write a checkpoint under a temporary name, give it its own when it is whole, and drop the older ones. All processes must call it.

    There is always a whole one: that of a step which is saved already stays.
    """
    weights, averaged = (_on_cpu(tensors) for tensors in (dict(network.state_dict()), average.averaged))
    optimizer_states = [_map_tensors(o.state_dict(), lambda t: full(t).cpu()) for o in optimizers]
    folder = run / "checkpoint" / f"step-{progress.step:08d}"
    if processes.is_first and not folder.exists():
        part = folder.with_name("part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(weights, part / "weights.safetensors")
        save_file(averaged, part / "average.safetensors")
        torch.save({"progress": asdict(progress), "optimizers": optimizer_states}, part / "state.pt")
        part.rename(folder)
        for older in folder.parent.iterdir():
            if older != folder:
                shutil.rmtree(older)
    processes.barrier()


def load_state(folder: Path, network: nn.Module, optimizers: Sequence[Optimizer], average: AveragedWeights) -> Progress:
    """Put a checkpoint's weights, averages and optimizer states back; rates and other settings of the optimizers stay as they are.

    Raises ValueError when the checkpoint is of another network or of other optimizers.
    """
    weights, averaged = (load_file(folder / f"{name}.safetensors") for name in ("weights", "average"))
    _copy(dict(network.state_dict()), weights, folder)
    _copy(average.averaged, averaged, folder)
    state = torch.load(folder / "state.pt", weights_only=True)
    if [_grouping(saved) for saved in state["optimizers"]] != [_grouping(o.state_dict()) for o in optimizers]:
        raise ValueError(
            f"{folder} is of another optimizer.name, or weight_decay or backbone_lr_factor put other parameters together then: give these "
            "settings as it was started with, or another output folder"
        )
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        _load_optimizer(optimizer, saved)
    return Progress(**state["progress"])


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: full(t).detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def _copy(live: dict[str, Tensor], saved: dict[str, Tensor], folder: Path) -> None:
    if live.keys() != saved.keys() or any(live[name].shape != saved[name].shape for name in live):
        raise ValueError(f"{folder} is of another network or other losses: give the settings it was started with, or another output folder")
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(_placed_like(saved[name], tensor))


def _grouping(state: dict[str, Any]) -> list[list[int]]:
    return [group["params"] for group in state["param_groups"]]


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i, entries in saved["state"].items():
        saved["state"][i] = {k: _placed_like(v, params[i]) if isinstance(v, Tensor) and v.ndim else v for k, v in entries.items()}
    optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})


def _placed_like(tensor: Tensor, like: Tensor) -> Tensor:
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor


def _map_tensors(tree: Any, change: Any) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _map_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_map_tensors(value, change) for value in tree]
    return tree


def save_weights(network: nn.Module, folder: Path, processes: Processes) -> None:
    """Write a folder that `load_model` reads. All processes must call it."""
    weights = _on_cpu(dict(network.state_dict()))
    if processes.is_first:
        with torch.device("meta"):
            whole = build_model(cast(ModelConfig, network.config))
        whole.load_state_dict(weights, assign=True)
        save_model(whole, folder)
    processes.barrier()
