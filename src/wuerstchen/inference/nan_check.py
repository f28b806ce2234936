"""NaN and infinity, traced to the layer that produced them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wuerstchen.errors import WuerstchenError


def finite(stage: str, network: nn.Module, result: Tensor, again: Callable[[], object]) -> Tensor:
    """The network's result, or a WuerstchenError that names the stage and the first bad layer.

    again  computes it once more, with the network uncompiled; called only after a failure
    """
    if bool(torch.isfinite(result).all()):
        return result
    layer = damaged_layer(network) or first_bad_layer(network, again)
    where = f"layer {layer} of {stage}" if layer else stage
    dtype = str(next(network.parameters()).dtype).removeprefix("torch.")
    raise WuerstchenError(
        f"Expected finite numbers from {stage}, found NaN or infinity, first in {where}; its "
        f"weights are damaged or overflow in {dtype}: load the model again with "
        "torch_dtype=torch.float32, or with torch.bfloat16, which has the same range."
    )


def damaged_layer(network: nn.Module) -> str:
    """Name of the first layer with a weight that is not finite; empty if there is none."""
    for name, parameter in network.named_parameters():
        if not bool(parameter.isfinite().all()):
            return name.rpartition(".")[0]
    return ""


def first_bad_layer(network: nn.Module, call: Callable[[], object]) -> str:
    """Name of the first layer, innermost first, whose result is not finite; empty if none."""
    found: list[str] = []
    names = {module: name for name, module in network.named_modules() if name}

    def hook(module: nn.Module, inputs: object, result: object) -> None:
        del inputs
        if not found and isinstance(result, Tensor) and not bool(result.isfinite().all()):
            found.append(names[module])

    hooks = [module.register_forward_hook(hook) for module in names]
    try:
        call()
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else ""
