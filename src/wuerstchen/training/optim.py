"""What of a stage learns: its networks, their optimizers, and the averages of the trained one.

networks ─▶ (sharded over processes) ─▶ averages, optimizers ─▶ load ─▶ wrap
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

from wuerstchen.config import TrainingConfig
from wuerstchen.training.checkpoints import TensorSpec
from wuerstchen.training.distributed import is_distributed, sync_batch_norms
from wuerstchen.training.ema import EMA
from wuerstchen.training.sharding import full_tensor, set_gradient_sync, shard
from wuerstchen.training.stage import Stage


class Optimizers:
    """Networks by name; the one called `stage.trained` is exported as the average of its steps."""

    def __init__(self, stage: Stage, accelerator: Accelerator) -> None:
        self.training = stage.training
        self._accelerator, self._trained = accelerator, stage.trained
        self._stage = stage
        self.networks = stage.networks()
        self.sharded = self.training.sharded and is_distributed()
        self._whole: nn.Module | None = None
        self._parallel = dict(self.networks)
        for name, network in self.networks.items():
            if is_distributed():
                sync_batch_norms(network)
            network.train()  # weights that training starts from come in eval mode
            if self.sharded:
                if name == self._trained and accelerator.is_main_process:
                    self._whole = copy.deepcopy(network)
                shard(network, accelerator.device)  # which knows no channels-last weights
            else:
                _place(network, accelerator.device)
        self.ema = EMA(self.networks[stage.trained], self.training.ema_decays)
        self._optimizers = {name: self._optimizer(stage, name) for name in self.networks}

    def wrap(self) -> dict[str, nn.Module]:
        """The networks as they are called in training; after loading, if there is anything."""
        if not self.sharded:
            for name, network in self.networks.items():
                self._parallel[name] = self._accelerator.prepare_model(network)
        if autocast_dtype(self.training) is torch.float32:
            return dict(self._parallel)
        return {name: Bf16Autocast(network) for name, network in self._parallel.items()}

    @contextmanager
    def ema_network(self, index: int = 0) -> Iterator[nn.Module]:
        """The whole trained network with the weights of average `index`, to look at or to export.

        Every process has to enter; of a sharded network the first one alone sees the average.
        """
        network = self.networks[self._trained]
        if self.sharded:
            average: dict[str, Tensor] = {}
            for name, tensor in self.ema.weights(index):
                gathered = full_tensor(tensor)  # one at a time: together they may not fit a device
                if self._whole is not None:
                    average[name] = gathered.cpu()
            if self._whole is not None:
                self._whole.load_state_dict(average, strict=False)  # the rest is frozen
                network = self._whole.to(self._accelerator.device)
            yield network.eval()
            if self._whole is not None:
                self._whole.cpu()
            self.networks[self._trained].train()
        else:
            with self.ema.in_place(index):
                yield network.eval()
            network.train()

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next update."""
        rate: float = next(iter(self._optimizers.values())).param_groups[0]["lr"]
        return rate

    def set_learning_rate(self, step: int, images: int) -> None:
        rate = self.training.learning_rate * lr_factor(self.training, step, images)
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate"]

    @contextmanager
    def sync_gradients(self, *, last: bool) -> Iterator[None]:
        """Processes set_gradient_sync gradients only after the last part of a step."""
        if self.sharded:
            for network in self.networks.values():
                set_gradient_sync(network, last=last)
            yield
        elif last:
            yield
        else:
            with ExitStack() as held:
                for network in self._parallel.values():
                    held.enter_context(self._accelerator.no_sync(network))
                yield

    def clip_grad_norm(self, name: str) -> float:
        """Shorten the gradient of network `name` to the training's norm; returns what it was."""
        parameters = [p for group in self._optimizers[name].param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.training.max_grad_norm)
        return float(full_tensor(norm))

    def step(self, name: str) -> None:
        self._optimizers[name].step()
        self.zero_grad(name)

    def zero_grad(self, name: str) -> None:
        self._optimizers[name].zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds of this, by name; the tensors themselves."""
        found = {f"average.{name}": tensor for name, tensor in self.ema.state().items()}
        found |= {f"stage.{name}": tensor for name, tensor in self._stage.memory().items()}
        for name, network in self.networks.items():
            found |= {f"network.{name}.{key}": t for key, t in _trained_state(network).items()}
            state = self._optimizers[name].state
            for key, parameter in network.named_parameters():
                for kind, value in state.get(parameter, {}).items():
                    found[f"optimizer.{name}.{kind}.{key}"] = value
        return found

    def state_for(self, shapes: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        """`tensors`, with room for what optimizers had when a checkpoint was written, no more."""
        for name, network in self.networks.items():
            state = self._optimizers[name].state
            state.clear()
            parameters = dict(network.named_parameters())
            head = f"optimizer.{name}."
            for saved, (shape, dtype) in shapes.items():
                kind, _, key = saved.removeprefix(head).partition(".")
                if saved.startswith(head) and key in parameters:
                    parameter = parameters[key]
                    like = parameter.shape == shape
                    value = (
                        torch.zeros_like(parameter)
                        if like
                        else torch.zeros(shape, dtype=dtype, device=parameter.device)
                    )
                    state[parameter][kind] = value.detach()
        return self.state()

    def _optimizer(self, stage: Stage, name: str) -> torch.optim.Optimizer:
        groups = [
            {"params": group.parameters, "rate": group.rate}
            for group in stage.parameter_groups(name)
        ]
        training = self.training
        # Fused, it goes over the weights once: on a CPU in less than a third of the time.
        return torch.optim.AdamW(
            groups,
            lr=training.learning_rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
            fused=True,
        )


def _place(network: nn.Module, device: torch.device) -> None:
    """Move a network to its device, with the weights of its convolutions as these work fastest.

    Others stay contiguous, which is how DDP expects the gradients of all for which both orders mean
    the same, such as kernels of one cell.
    """
    network.to(device)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and max(module.kernel_size) > 1:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Bf16Autocast(nn.Module):
    """A network under autocast to bf16, whose results are fp32 again.

    Around the network and not inside of it: looks and exports see the network alone.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: object) -> object:
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, torch.bfloat16):
            result: object = self.network(*inputs)
        return convert_to_fp32(result)


def autocast_dtype(training: TrainingConfig) -> torch.dtype:
    """What the networks compute in: bf16 by itself only where an accelerator has it."""
    if training.precision == "auto":
        half = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    else:
        half = training.precision == "bf16"
    return torch.bfloat16 if half else torch.float32


def emulates_bf16(device: torch.device) -> bool:
    """Whether a processor has no instructions for bf16; False where that cannot be told."""
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # of newer torches
        return False
    found = torch.cpu.get_capabilities()
    return not any(found.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16"))


def lr_factor(training: TrainingConfig, step: int, images: int) -> float:
    """What the learning rate is multiplied by: linear warm-up, then what `decay` says."""
    warm, done = min(1.0, step / max(1, training.warmup_steps)), min(1.0, images / training.images)
    match training.lr_schedule:
        case "constant":
            return warm
        case "cosine":
            return warm * (0.505 + 0.495 * math.cos(math.pi * done))
        case "linear":
            return warm * (1 - 0.99 * done)
        case "warmup_stable_decay":
            return warm * min(1.0, 0.01 + 0.99 * (1 - done) / LATE)


LATE = 0.2
"""Share of a run, at its end, in which warmup_stable_decay decays."""


def _trained_state(network: nn.Module) -> dict[str, Tensor]:
    """Weights and statistics without the weights that are frozen: these come with the config."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {name: t for name, t in network.state_dict().items() if name not in frozen}
