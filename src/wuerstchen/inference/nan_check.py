"""NaN and infinity, traced to the layer that made them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wuerstchen.errors import WuerstchenError


def finite(stage: str, network: nn.Module, made: Tensor, again: Callable[[], object]) -> Tensor:
    """What the network made, or a WuerstchenError that names the stage and the first bad layer.

    again  makes it once more, with the network called in the plain way; only after a failure
    """
    if bool(torch.isfinite(made).all()):
        return made
    layer = damaged_layer(network) or first_bad_layer(network, again)
    where = f"layer {layer} of {stage}" if layer else stage
    raise WuerstchenError(
        f"Expected finite numbers from {stage}, found NaN or infinity, first in {where}; its "
        f"weights are damaged or overflow in {_precision(network)}: load the model anew with "
        "torch_dtype=torch.float32, or with torch.bfloat16, which has the same range."
    )


def damaged_layer(network: nn.Module) -> str:
    """Name of the first layer that has a weight which is not finite; empty: none has one."""
    for name, parameter in network.named_parameters():
        if not bool(parameter.isfinite().all()):
            return name.rpartition(".")[0]
    return ""


def first_bad_layer(network: nn.Module, call: Callable[[], object]) -> str:
    """Name of the first layer, innermost first, whose result is not finite; empty: none has one."""
    found: list[str] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, result: object) -> None:
            del module, inputs
            if not found and isinstance(result, Tensor) and not bool(result.isfinite().all()):
                found.append(name)

        return hook

    hooks = [
        module.register_forward_hook(note(name)) for name, module in network.named_modules() if name
    ]
    try:
        call()
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else ""


def _precision(network: nn.Module) -> str:
    return str(next(network.parameters()).dtype).removeprefix("torch.")
