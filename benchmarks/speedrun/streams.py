"""Random numbers of a whole batch from one generator, on the device that needs them."""

import torch
from torch import Tensor

from wuerstchen.noise import RandomStreams


class BatchStreams(RandomStreams):
    """Faster than one stream per image, which makes training reproducible for any batch size."""

    def __init__(self, count: int, host: torch.Generator, device: torch.Generator) -> None:
        super().__init__([])
        self._count, self._host, self._device = count, host, device

    def normal(
        self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        made = torch.randn(
            self._count, *shape, generator=self._device, device=self._device.device, dtype=dtype
        )
        return made.to(device)

    def uniform(self) -> Tensor:
        return torch.rand(self._count, generator=self._host)
