"""The device that engines run on."""

import threading

import pytest
import torch

from da3_core.engines import device, wake_up
from da3_core.engines.device import device_of


def test_auto_is_a_gpu_where_there_is_one():
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_of("cpu").type == "cpu"


def test_a_cpu_is_awake():
    before = threading.active_count()
    wake_up("cpu")
    assert threading.active_count() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported_where_it_is_needed_and_not_by_waking_it():
    device._use(torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_wakes_up_beside_other_work(monkeypatch):
    used = threading.Event()
    use = device._use
    monkeypatch.setattr(device, "_use", lambda where: (use(where), used.set()))
    wake_up("cuda")
    assert used.wait(60)
    assert torch.cuda.memory_reserved() > 0
