"""A small Stage B without text, and the training config of the study."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from benchmarks.studies.stage_b_targets.fixed_divisor import FixedDivisor
from wuerstchen.config import StageBModel
from wuerstchen.geometry import SEMANTICS_SCALE
from wuerstchen.models.stage_b import StageB

RIDGE = 1e-3
"""Added to the variances when whitening, relative to the largest."""

INITIAL_STD = 0.02
"""Initial standard deviation of Stage B's semantics mappers."""


class StudyConfig(BaseModel):
    """Size and training of the network, the same for all objectives of a comparison."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    widths: tuple[int, ...] = Field((32, 64), description="channels of each level")
    blocks: tuple[int, ...] = Field((1, 2), description="blocks of each level")
    heads: tuple[int, ...] = Field((0, 2), description="attention heads of each level")
    finest: bool = Field(False, description="condition the finest level on the semantics too")
    images: int = Field(12_800, description="training images, repeats included")
    batch: int = Field(32, description="batch size")
    rate: float = Field(2e-3, description="peak learning rate")
    ema: float = Field(0.99, description="decay of the EMA weights")
    warmup: int = Field(50, description="warm-up steps")
    condition: int = Field(0, description="condition width; 0: that of the finest level")
    mapper_std: float = Field(
        INITIAL_STD, description="initial std of the semantics mappers, for unit-scale semantics"
    )
    whiten: bool = Field(
        False, description="initialise the semantics mappers to whitened principal components"
    )
    mapper_rate: float = Field(
        1.0, description="relative learning rate of the semantics mappers, for unit scale"
    )
    muon: bool = Field(False, description="use Muon for weights that are matrices")
    muon_rate: float = Field(1.0, description="learning rate of Muon relative to AdamW's")
    seed: int = Field(0, description="seed of weights and training")


class Network(torch.nn.Module):
    """A Stage B without text that returns the head's output before the division."""

    def __init__(self, config: StudyConfig, channels: int, *, fixed_divisor: bool) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.stage_b = StageB(
            StageBModel(
                widths=config.widths,
                blocks=config.blocks,
                heads=config.heads,
                semantics=(config.finest, *(True for _ in config.widths[1:])),
                semantic_channels=channels,
                condition_width=config.condition or config.widths[0],
                text_width=8,
                dropout=0.0,
            )
        )
        self.stage_b.hold_text()
        self.mappers = list(self.stage_b.semantics_mappers.parameters())
        with torch.no_grad():
            for parameter in self.mappers:
                if parameter.dim() > 1:
                    parameter.mul_(config.mapper_std / INITIAL_STD / SEMANTICS_SCALE)
        self.head = list(self.stage_b.head.parameters())
        self.fixed_divisor = FixedDivisor(self.stage_b) if fixed_divisor else None
        self._output = torch.empty(0)
        self.stage_b.head.register_forward_hook(self._store_output)

    @torch.no_grad()
    def whiten(self, semantics: Tensor) -> None:
        """Initialise the semantics mappers to principal components of unit variance.

        semantics  (N, D, h, w), unscaled
        """
        cells = semantics.permute(0, 2, 3, 1).flatten(0, 2).double()  # (N h w, D)
        mean = cells.mean(0)
        covariance = (cells - mean).T @ (cells - mean) / len(cells)
        variances, directions = torch.linalg.eigh(covariance)
        ridge = variances[-1] * RIDGE
        rows = (directions / (variances + ridge).sqrt()).T.flip(0)  # largest variance first
        for mapper in self.stage_b.semantics_mappers:
            if isinstance(mapper, torch.nn.Conv2d):
                assert mapper.bias is not None
                count = min(len(rows), len(mapper.weight))
                mapper.weight[:count] = rows[:count, :, None, None]
                mapper.bias[:count] = -rows[:count] @ mean

    def forward(self, x: Tensor, t: Tensor, semantics: Tensor) -> Tensor:
        """(B, 8, H, W) output of the head for (B, 4, H, W) states and unscaled semantics."""
        text = torch.zeros(len(x), 1, 8)
        condition = self.stage_b.condition(semantics, text, (x.shape[-2], x.shape[-1]))
        self.stage_b(x, t, condition)
        return self._output

    def _store_output(self, module: torch.nn.Module, args: object, output: Tensor) -> None:
        del module, args
        self._output = output
