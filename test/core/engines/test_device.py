"""The device that engines run on."""

import pytest
import torch

from da3_core.engines.device import _try_to_use, device_of, use
from da3_core.evaluation.run import evaluate

CUDA = torch.device("cuda")
HAS_GPU = torch.cuda.is_available()


def test_auto_is_a_gpu_where_there_is_one():
    assert device_of("auto").type == ("cuda" if HAS_GPU else "cpu")
    assert device_of("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("gpu", "there is no device 'gpu': take auto, cpu, cuda or cuda:N"),
        ("meta", "do not run on the device 'meta': take auto, cpu"),
        ("cuda", "no GPU for 'cuda' that this PyTorch can use: take auto or cpu"),
        ("cuda:1", "no GPU for 'cuda:1'"),
    ],
)
def test_a_device_that_there_is_none_of_is_refused_with_a_remedy(name, complaint, model_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=complaint):
        device_of(name)
    with pytest.raises(ValueError, match=complaint):
        evaluate(model_of("da3-nano"), device=name)


def test_a_gpu_beyond_the_last_one_is_refused_with_that(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="no GPU 2: the last one is cuda:1"):
        device_of("cuda:2")


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU")])])
def test_all_that_wakes_a_device_runs_there(name):
    use(torch.device(name))


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_a_missing_gpu_is_reported_where_it_is_needed_and_not_by_waking_it():
    with pytest.raises((RuntimeError, AssertionError)):
        use(CUDA)
    _try_to_use(CUDA)
