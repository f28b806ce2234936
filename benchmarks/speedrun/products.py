"""The machine's limit: operations per second of large matrix products, in each type it computes."""

import time

import torch

from wuerstchen.training.optim import emulates_bf16

SIDES = {"cpu": 2048, "cuda": 8192}

SECONDS = 1.0
"""Of products in each type."""


def product_rates(device: torch.device, side: int | None = None) -> dict[str, float]:
    """FLOP/s by type: the fastest of products that are repeated for `SECONDS`.

    fp32 is that of the settings of the run: TF32 where torch may use it. bf16 is left out where
    the processor only emulates it.
    """
    dtypes = {"fp32": torch.float32}
    if not emulates_bf16(device):
        dtypes["bf16"] = torch.bfloat16
    return {
        name: _rate(device, dtype, side or SIDES[device.type]) for name, dtype in dtypes.items()
    }


def _rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)  # the first call prepares kernels
    times = list[float]()
    while sum(times) < SECONDS:
        _wait(device)
        start = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
