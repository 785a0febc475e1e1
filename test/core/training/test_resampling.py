from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from da3_core.training.resampling import resample, resampling_matrix


@pytest.mark.parametrize(("old", "new"), [((6, 8), (9, 14)), ((5, 7), (10, 14)), ((4, 4), (4, 4)), ((3, 5), (1, 9))])
def test_gradient_is_that_of_interpolate(old: tuple[int, int], new: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *old, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(2, 3, *new, dtype=torch.float64)
    ours, theirs = resample(x, new), F.interpolate(x, new, mode="bilinear", align_corners=True)
    torch.testing.assert_close(ours, theirs)
    (mine,), (reference,) = torch.autograd.grad((ours * wanted).sum(), x), torch.autograd.grad((theirs * wanted).sum(), x)
    torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)


def test_matrix_resamples_a_line() -> None:
    row = torch.randn(7)
    expected = F.interpolate(row[None, None], 19, mode="linear", align_corners=True)[0, 0]
    torch.testing.assert_close(resampling_matrix(7, 19, row.device).float() @ row, expected)
