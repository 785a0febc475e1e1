"""The same numbers on a GPU, without waiting for it, and recorded as a graph."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from da3_core.model import build_model
from da3_core.types import Prediction

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
TRAINING = frozenset({"depth", "rays", "cameras"})
NAMES = ("depth", "confidence", "rays", "ray_confidence", "camera_encoding", "T_cam_world", "K")


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


@pytest.fixture
def model(any_view_config, lively) -> nn.Module:
    return lively(build_model(any_view_config))


def difference(ours: Prediction, truth: Prediction) -> float:
    pairs = [(getattr(ours, name).cpu(), getattr(truth, name).cpu()) for name in NAMES]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def test_numbers_are_those_of_the_cpu(model, images):
    truth = model(images, want=TRAINING)
    assert difference(model.cuda()(images.cuda(), want=TRAINING), truth) < 1e-4


@pytest.mark.parametrize("reference_view", ["saddle_balanced", "saddle_sim_range", "middle", 1])
def test_the_host_runs_ahead(model, mono_config, images, reference_view):
    model, mono, images = model.cuda(), build_model(mono_config).cuda(), images.cuda()
    for mode in ("default", "error"):  # the first pass sets up the libraries
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast("cuda", torch.bfloat16):
                model(images, reference_view=reference_view, want=TRAINING)
                mono(images)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_graph_replays_the_forward_pass(model, images):
    model, images = model.cuda(), images.cuda()
    static = torch.zeros_like(images)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        model(static, want=TRAINING)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = model(static, want=TRAINING)
    static.copy_(images)
    graph.replay()
    assert difference(recorded, model(images, want=TRAINING)) < 1e-5
