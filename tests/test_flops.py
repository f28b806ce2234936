"""Operations are counted wherever they run: against products of the sizes by hand."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wuerstchen.flops import FlopCounter

ATTENTION = 2 * (2 * 2 * 4 * 9 * 17 * 16)
"""Scores and their product with the values: 2 images, 4 heads, 9 queries, 17 keys, 16 channels."""


def counted(work: Callable[[], object]) -> int:
    counter = FlopCounter()
    with counter:
        work()
    return counter.total


def test_attention_is_counted_forward_and_backward() -> None:
    """Backward has four products and the scores once more: five halves of the forward pass."""
    q, k = (torch.randn(2, 4, length, 16, requires_grad=True) for length in (9, 17))
    assert counted(lambda: F.scaled_dot_product_attention(q, k, k)) == ATTENTION
    out = F.scaled_dot_product_attention(q, k, k).sum()
    assert counted(out.backward) == 2.5 * ATTENTION


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_no_mode_hides_operations(mode: Callable[[], torch.no_grad]) -> None:
    linear, convolution = nn.Linear(16, 8), nn.Conv2d(3, 4, 3)
    with mode():
        assert counted(lambda: linear(torch.randn(2, 3, 16))) == 2 * 2 * 3 * 16 * 8
        assert counted(lambda: convolution(torch.randn(1, 3, 8, 8))) == 2 * 6 * 6 * 3 * 4 * 9
        enlarging = nn.ConvTranspose2d(3, 4, kernel_size=2, stride=2)
        assert counted(lambda: enlarging(torch.randn(1, 3, 8, 8))) == 2 * 8 * 8 * 3 * 4 * 4
        assert counted(lambda: torch.randn(5, 2, 3) @ torch.randn(3, 4)) == 2 * 5 * 2 * 3 * 4
        q, k = torch.randn(2, 4, 9, 16), torch.randn(2, 4, 17, 16)
        assert counted(lambda: F.scaled_dot_product_attention(q, k, k)) == ATTENTION


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_counting_changes_no_bit(mode: Callable[[], torch.no_grad]) -> None:
    """A run that resumes counts its first step once more, and has to end at the same weights."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    network = nn.Sequential(layer, nn.Linear(32, 32), nn.SiLU(), nn.LayerNorm(32))
    x = torch.randn(3, 50, 32)
    with mode():
        plain = network(x)
        with FlopCounter():
            while_counted = network(x)
    assert torch.equal(plain, while_counted)
