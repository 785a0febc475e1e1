"""What foreign code throws."""

from __future__ import annotations

import pytest
import torch

from da3_core.engines.backend import ProgramError, refused_where


def test_whatever_is_thrown_becomes_a_refusal() -> None:
    with (
        pytest.raises(ProgramError, match=r"^the build failed \(KeyError: 'opset'\): take another version$") as refusal,
        refused_where("the build failed", ": take another version"),
    ):
        raise KeyError("opset")
    assert isinstance(refusal.value.__cause__, KeyError)


@pytest.mark.parametrize("error", [ProgramError("it says what helps"), torch.OutOfMemoryError("2 GiB"), KeyboardInterrupt()])
def test_refusals_exceptions_that_others_handle_and_interrupts_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as passed, refused_where("the build failed", but=(torch.OutOfMemoryError,)):
        raise error
    assert passed.value is error


def test_nothing_thrown_is_nothing_refused() -> None:
    with refused_where("the build failed"):
        found = 1
    assert found == 1
