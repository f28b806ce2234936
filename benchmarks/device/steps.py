"""Training steps on a device, and sharded ones, against the same steps elsewhere."""

import copy
import os
import tempfile
from contextlib import closing
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from benchmarks.device.comparing import device, expect, relative
from benchmarks.memory_plan import CAPTIONS, Case, config_of, trainer
from wuerstchen.config import StageCModel
from wuerstchen.data import Batch
from wuerstchen.models.stage_c import StageC
from wuerstchen.training.ema import EMA
from wuerstchen.training.optim import Bf16Autocast, Optimizers
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.sharding import full_tensor, set_gradient_sync, shard
from wuerstchen.training.stage import RunName, TrainState
from wuerstchen.training.train_step import TrainStep

STEPS = 2
WARMED_UP = 20_000
"""A step with the full learning rate."""
WIDTH = 256
"""Of the Stage C that is sharded."""


def check_steps() -> str:
    """Two steps of every stage, in bf16 on the device against fp32 on the CPU."""
    figures = []
    stages: tuple[RunName, ...] = ("a", "b", "c")
    for stage in stages:
        case = Case(stage, batch=8, size=128, bf16=True, checkpointing=stage != "a")
        expected = _scalars(Case(stage, batch=8, size=128), torch.device("cpu"))
        found = _scalars(case, device())
        worst, name = max(
            (abs(found[name] - value) / abs(value), name) for name, value in expected.items()
        )
        # Stage A chooses the nearest codes, where rounding decides between two.
        limit = 0.3 if stage == "a" else 0.05
        figures.append(expect(f"{stage} off by ({name})", worst, at_most=limit))
    return f"losses and gradients of {', '.join(figures)}"


def _scalars(case: Case, where: torch.device) -> dict[str, float]:
    """Losses and norms of gradients in two steps from the same weights, on the same images."""
    torch.manual_seed(0)
    config = config_of(case)
    stage = trainer(case.stage, config)
    accelerator = Accelerator(mixed_precision="no", cpu=where.type == "cpu")
    captions = [CAPTIONS[index % len(CAPTIONS)] for index in range(case.batch)]
    images = torch.rand(case.batch, 3, case.size, case.size)
    batch = Batch(images, captions, captions, list(range(case.batch)))
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(RunLog(Path(folder) / "run", writes=True)) as run_log,
    ):
        step = TrainStep(stage, Optimizers(stage, accelerator), run_log, accelerator, seed=0)
        steps = [
            step.run(batch, TrainState(WARMED_UP + number, number * case.batch))
            for number in range(STEPS)
        ]
    return {
        f"{name} {number}": value
        for number, scalars in enumerate(steps)
        for name, value in scalars.items()
        if name == "error" or name.startswith("gradient")
    }


def check_fsdp() -> str:
    """One step of a sharded Stage C in bf16 leaves the weights of an unsharded one.

    Run by torchrun: all processes get the same rows, so that their mean gradient is that of one.
    """
    here = device()
    if here.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo")
    torch.manual_seed(0)
    config = StageCModel(width=WIDTH, depth=4, heads=4, text_width=64, dropout=0.0)
    alone = _Conditioned(StageC(config)).to(here)
    sharded = copy.deepcopy(alone)
    shard(sharded, here)
    rows = [torch.randn(4, *shape, device=here) for shape in ((16, 24, 24), (77, 64))]
    noise, states, t = torch.randn_like(rows[0]), rows[1], torch.full((4,), 0.5, device=here)
    norms = [_step(network, rows[0], noise, states, t) for network in (alone, sharded)]
    pairs = zip(sharded.parameters(), alone.parameters(), strict=True)
    found, expected = zip(
        *((full_tensor(a.detach()).flatten(), b.detach().flatten()) for a, b in pairs), strict=True
    )
    figures = (
        expect("gradient norm off by", abs(norms[1] / norms[0] - 1), at_most=1e-2),
        expect("weights off by", relative(torch.cat(found), torch.cat(expected)), at_most=1e-3),
    )
    processes, backend = dist.get_world_size(), dist.get_backend()
    dist.destroy_process_group()
    return f"{processes} process of {backend}, {', '.join(figures)}"


def _step(network: nn.Module, x: Tensor, noise: Tensor, states: Tensor, t: Tensor) -> float:
    """One step with EMA weights; the norm of the gradient."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    ema = EMA(network, [0.999])
    if isinstance(network, FSDPModule):
        set_gradient_sync(network, last=True)
    predicted = Bf16Autocast(network)(x, t, states)
    assert isinstance(predicted, Tensor)
    (predicted - noise).square().mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    ema.update()
    return float(full_tensor(norm))


class _Conditioned(nn.Module):
    """Stage C as training calls it, with the text states as input."""

    def __init__(self, network: StageC) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        predicted: Tensor = self.network(x, t, self.network.condition(states))
        return predicted
