"""From settings to the objective: the network, its first weights, its labels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from da3_core.model import Nested, init_backbone_from_dinov2, load_model
from da3_core.training.anyview import AnyViewTraining
from da3_core.training.config import TrainConfig
from da3_core.training.data import RenderedScenes, Source
from da3_core.training.objective import Objective, ground_truth
from da3_core.training.recordings import RecordedScenes

PLAN_AHEAD = 16  # steps; a GPU waits for its host otherwise


def make_objective(config: TrainConfig, device: torch.device) -> Objective:
    """What the settings say is to be trained, on `device`."""
    network = make_network(config).to(device)
    if config.objective == "anyview":
        return AnyViewTraining(network, config.loss, config.runtime.bf16, ground_truth)
    raise NotImplementedError


def make_network(config: TrainConfig) -> nn.Module:
    """The network with random weights from the seed, or with those of `init_from`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = load_model(config.model, weights=None)
    source = config.init_from
    if source.endswith(".safetensors") and not isinstance(network, Nested):
        init_backbone_from_dinov2(network, Path(source))
    elif source:
        network.load_state_dict(load_model(source).state_dict())
    return network.train()


def make_source(config: TrainConfig, device: torch.device) -> Source:
    """What turns a draw into samples on `device`."""
    if config.data.source == "tum_rgbd":
        return RecordedScenes(config.data, device)
    on_gpu = device.type == "cuda"
    return RenderedScenes(device, compiled=config.runtime.compile and on_gpu, ahead=PLAN_AHEAD if on_gpu else 1)
