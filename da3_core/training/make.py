"""From settings to the objective: the network, its first weights, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from da3_core.model import AnyView, Model, Mono, Nested, init_backbone_from_dinov2, load_model
from da3_core.training.anyview import AnyViewTraining
from da3_core.training.config import TrainConfig
from da3_core.training.data import RenderedScenes, Source
from da3_core.training.deepening import deepen
from da3_core.training.gaussians import GaussianTraining
from da3_core.training.labels import TeacherLabels
from da3_core.training.metric import MetricTraining
from da3_core.training.objective import Labels, Objective, ground_truth
from da3_core.training.recordings import RecordedScenes
from da3_core.training.teacher import TeacherTraining

PLAN_AHEAD = 64  # steps; a GPU waits for its host otherwise
FIRST_SKY = 0.5  # of random weights: below zero, the sky output's ReLU has no gradient


def make_objective(config: TrainConfig, device: torch.device) -> Objective:
    """What the settings say is to be trained, on `device`. Raises ValueError when model, objective and teacher do not fit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _objective(config, make_network(config), make_labels(config, device)).to(device)


def _objective(config: TrainConfig, network: Model, labels: Labels) -> Objective:
    loss, bf16, name = config.loss, config.runtime.bf16, config.objective
    if name in ("anyview", "gaussians") and isinstance(network, AnyView):
        return AnyViewTraining(network, loss, bf16, labels) if name == "anyview" else GaussianTraining(network, loss, bf16, labels)
    if name in ("teacher", "mono") and isinstance(network, Mono) and not network.config.metric:
        return TeacherTraining(network, loss, bf16, labels, objects=name == "teacher")
    if name == "metric" and isinstance(network, Mono) and network.config.metric:
        return MetricTraining(network, loss, bf16, labels)
    raise ValueError(f"objective {name} does not train {config.model}, a network of {_output_of(network)}: choose another preset")


def _output_of(network: Model) -> str:
    if isinstance(network, Mono):
        return "depth in metres" if network.config.metric else "relative depth"
    return f"kind {type(network).__name__}"


def make_network(config: TrainConfig) -> Model:
    """The network with random weights, or with those of `init_from`."""
    network = load_model(config.model, weights=None)
    source = config.init_from
    if isinstance(network, Mono) and network.head.sky_output.out.bias is not None:
        torch.nn.init.constant_(network.head.sky_output.out.bias, FIRST_SKY)
    if source.endswith(".safetensors") and not isinstance(network, Nested):
        init_backbone_from_dinov2(network, Path(source))
    elif source:
        network.load_state_dict(_weights_for(network, load_model(source)))
    return network.train()


def _weights_for(network: Model, trained: Model) -> dict[str, Tensor]:
    """Those of `trained`, spread over more blocks where `network` has more. Raises ValueError when one cannot begin as the other."""
    weights = dict(trained.state_dict())
    if not isinstance(network, Nested) and not isinstance(trained, Nested):
        weights = deepen(weights, trained.config.backbone, network.config.backbone)
    unlike = sorted({name for name, _ in _shapes(weights) ^ _shapes(network.state_dict())})
    if unlike:
        more = f"{len(unlike)} parameters, {unlike[0]} among them, are not in both or of another shape"
        raise ValueError(f"{network.config} cannot begin as {trained.config}: {more}")
    return weights


def _shapes(weights: Mapping[str, Tensor]) -> set[tuple[str, torch.Size]]:
    return {(name, tensor.shape) for name, tensor in weights.items()}


def make_labels(config: TrainConfig, device: torch.device) -> Labels:
    """Ground truth, or a teacher's labels as the objective takes them."""
    if not config.teacher.model:
        if config.objective == "mono":
            raise ValueError("the mono student learns from a teacher: set teacher.model, or train with objective teacher")
        return ground_truth
    teacher = load_model(config.teacher.model, device=device)
    if not isinstance(teacher, Mono):
        raise ValueError(f"teacher.model = {config.teacher.model} is no mono network: train one with objective teacher")
    share = config.loss.metric_ground_truth if config.objective == "metric" else 0.0
    aligned = config.objective != "mono"
    return TeacherLabels(teacher, config.runtime.bf16, aligned=aligned, from_step=config.teacher.from_step, ground_truth=share)


def make_source(config: TrainConfig, device: torch.device) -> Source:
    """What turns a draw into samples on `device`."""
    if config.data.source == "tum_rgbd":
        return RecordedScenes(config.data, device)
    on_gpu = device.type == "cuda"
    return RenderedScenes(device, compiled=config.runtime.compile and on_gpu, ahead=PLAN_AHEAD if on_gpu else 1, mix=config.data.worlds)
