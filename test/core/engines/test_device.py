"""The device that engines run on."""

import pytest
import torch

from da3_core.engines.device import _try_to_use, device_of, use

CUDA = torch.device("cuda")
HAS_GPU = torch.cuda.is_available()


def test_auto_is_a_gpu_where_there_is_one():
    assert device_of("auto").type == ("cuda" if HAS_GPU else "cpu")
    assert device_of("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="no GPU")])])
def test_all_that_wakes_a_device_runs_there(name):
    use(torch.device(name))


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_a_missing_gpu_is_reported_where_it_is_needed_and_not_by_waking_it():
    with pytest.raises((RuntimeError, AssertionError)):
        use(CUDA)
    _try_to_use(CUDA)
