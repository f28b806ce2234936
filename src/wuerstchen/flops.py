"""Operations that torch's own counter gets wrong; two for a multiplication with its addition."""

from torch import Tensor
from torch.utils.flop_counter import conv_flop_count


def convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *rest: object, out_val: object
) -> int:
    """As many operations for each gradient as for the convolution.

    torch's own formula forgets the groups, and would count a depthwise one as a full one.
    """
    del out_val
    transposed, mask = rest[4], rest[7]
    assert isinstance(transposed, bool) and isinstance(mask, list | tuple)
    shapes = list(x.shape), list(weight.shape), list(gradient.shape)
    once = int(conv_flop_count(*shapes, transposed=transposed))
    return once * (bool(mask[0]) + bool(mask[1]))
