"""The trained networks of a stage with their optimizers and the EMA weights.

networks ─▶ (sharded over processes) ─▶ EMA, optimizers ─▶ load ─▶ wrap
"""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain

import torch
from accelerate import Accelerator
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

from wuerstchen.config import TrainingConfig
from wuerstchen.training.checkpoints import TensorSpec
from wuerstchen.training.distributed import is_distributed, sync_batch_norms
from wuerstchen.training.ema import EMA
from wuerstchen.training.muon import MOMENTUM, Muon, linear_weights, optimizers_of
from wuerstchen.training.sharding import full_tensor, set_gradient_sync, shard
from wuerstchen.training.stage import Stage


class Optimizers:
    """Networks and optimizers by name; `stage.trained` names the network with EMA weights."""

    def __init__(self, stage: Stage, accelerator: Accelerator) -> None:
        self.training, self.networks = stage.training, stage.networks()
        self._stage, self._accelerator, self._trained = stage, accelerator, stage.trained
        self.sharded = self.training.sharded and is_distributed()
        self._unsharded: nn.Module | None = None
        self._parallel = dict(self.networks)
        for name, network in self.networks.items():
            if is_distributed():
                sync_batch_norms(network)
            network.train()  # loaded networks are in eval mode
            if self.sharded:
                if name == self._trained and accelerator.is_main_process:
                    self._unsharded = copy.deepcopy(network)
                shard(network, accelerator.device)  # which does not support channels-last
            else:
                move_to(network, accelerator.device)
        self.ema = EMA(self.networks[stage.trained], self.training.ema_decays)
        self._optimizers = {name: self._new_optimizers(name) for name in self.networks}

    def wrap(self) -> dict[str, nn.Module]:
        """The networks as training calls them; call this after loading a checkpoint."""
        if not self.sharded:
            for name, network in self.networks.items():
                self._parallel[name] = self._accelerator.prepare_model(network)
        if autocast_dtype(self.training) is torch.float32:
            return dict(self._parallel)
        return {name: Bf16Autocast(network) for name, network in self._parallel.items()}

    @contextmanager
    def ema_network(self, index: int = 0) -> Iterator[nn.Module]:
        """The trained network with the weights of EMA `index`, for validation and export.

        A collective call; of a sharded network only rank 0 gets the EMA weights.
        """
        network = self.networks[self._trained]
        if not self.sharded:
            with self.ema.swapped_in(index):
                yield network.eval()
            network.train()
            return
        weights: dict[str, Tensor] = {}
        for name, tensor in self.ema.weights(index):
            gathered = full_tensor(tensor)  # one at a time, as all may not fit on a device
            if self._unsharded is not None:
                weights[name] = gathered.cpu()
        if self._unsharded is None:
            yield network.eval()
        else:
            self._unsharded.load_state_dict(weights, strict=False)  # the rest is frozen
            yield self._unsharded.to(self._accelerator.device).eval()
            self._unsharded.cpu()
        network.train()

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        group = next(iter(self._optimizers.values()))[0].param_groups[0]
        rate: float = group["lr"] / group["rate"]
        return rate

    def set_learning_rate(self, step: int, images: int) -> None:
        rate = self.training.learning_rate * lr_factor(self.training, step, images)
        for optimizer in chain.from_iterable(self._optimizers.values()):
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate"]

    @contextmanager
    def sync_gradients(self, *, last: bool) -> Iterator[None]:
        """Synchronise gradients only after the last micro-batch of a step."""
        with ExitStack() as stack:
            for name, network in self.networks.items():
                if self.sharded:
                    set_gradient_sync(network, last=last)
                elif not last:
                    stack.enter_context(self._accelerator.no_sync(self._parallel[name]))
            yield

    def clip_grad_norm(self, name: str) -> float:
        """Clip the gradient of network `name` to max_grad_norm; returns its norm before."""
        groups = chain.from_iterable(o.param_groups for o in self._optimizers[name])
        parameters = [p for group in groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.training.max_grad_norm)
        return float(full_tensor(norm))

    def step(self, name: str) -> None:
        for optimizer in self._optimizers[name]:
            optimizer.step()
        self.zero_grad(name)

    def zero_grad(self, name: str) -> None:
        for optimizer in self._optimizers[name]:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint by name; loading writes into them."""
        found = {f"average.{name}": tensor for name, tensor in self.ema.state().items()}
        found |= {f"stage.{name}": tensor for name, tensor in self._stage.state().items()}
        for name, network in self.networks.items():
            found |= {f"network.{name}.{key}": t for key, t in _trained_state(network).items()}
            for key, parameter in network.named_parameters():
                for optimizer in self._optimizers[name]:
                    for kind, value in optimizer.state.get(parameter, {}).items():
                        found[f"optimizer.{name}.{kind}.{key}"] = value
        return found

    def state_for(self, shapes: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        """`state`, with empty optimizer states of the shapes in a checkpoint."""
        for name, network in self.networks.items():
            owners = self._cleared(name)
            parameters = dict(network.named_parameters())
            prefix = f"optimizer.{name}."
            for saved, (shape, dtype) in shapes.items():
                kind, _, key = saved.removeprefix(prefix).partition(".")
                if not saved.startswith(prefix) or key not in parameters:
                    continue
                parameter = parameters[key]
                owner = owners.get(parameter, self._optimizers[name][0])
                if (kind == MOMENTUM) != isinstance(owner, Muon):
                    continue  # of another optimizer: loading will say that it does not fit
                value: Tensor = parameter
                if value.shape != shape:  # the step count
                    value = torch.zeros(shape, dtype=dtype, device=value.device)
                owner.state[parameter][kind] = torch.zeros_like(value).detach()
        return self.state()

    def _cleared(self, name: str) -> dict[nn.Parameter, torch.optim.Optimizer]:
        """The optimizer of each parameter of network `name`, all without their states."""
        found: dict[nn.Parameter, torch.optim.Optimizer] = {}
        for optimizer in self._optimizers[name]:
            optimizer.state.clear()
            for group in optimizer.param_groups:
                found |= dict.fromkeys(group["params"], optimizer)
        return found

    def _new_optimizers(self, name: str) -> list[torch.optim.Optimizer]:
        training = self.training
        return optimizers_of(
            self._stage.parameter_groups(name),
            linear_weights(self.networks[name]) if training.optimizer == "muon" else (),
            learning_rate=training.learning_rate,
            muon_rate=training.muon_rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
        )


def move_to(network: nn.Module, device: torch.device) -> None:
    """Move a network to a device, with its larger convolutions in channels-last.

    1x1 kernels stay contiguous: for them both formats are equivalent, and DDP expects contiguous
    gradients.
    """
    network.to(device)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and max(module.kernel_size) > 1:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Bf16Autocast(nn.Module):
    """A network under autocast to bf16 with fp32 outputs.

    Wraps the network, so that validation and export use it without autocast.
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
    """The compute dtype; auto: bf16 only on accelerators that support it."""
    supported = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    bf16 = supported if training.precision == "auto" else training.precision == "bf16"
    return torch.bfloat16 if bf16 else torch.float32


def emulates_bf16(device: torch.device) -> bool:
    """Whether a processor lacks bf16 instructions; False if this is unknown."""
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older torch
        return False
    found = torch.cpu.get_capabilities()
    return not any(found.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16"))


def lr_factor(training: TrainingConfig, step: int, images: int) -> float:
    """Factor of the learning rate: linear warm-up, then `lr_schedule`."""
    warm, done = min(1.0, step / max(1, training.warmup_steps)), min(1.0, images / training.images)
    match training.lr_schedule:
        case "constant":
            return warm
        case "cosine":
            return warm * (0.505 + 0.495 * math.cos(math.pi * done))
        case "linear":
            return warm * (1 - 0.99 * done)
        case "warmup_stable_decay":  # over the last fifth
            return warm * min(1.0, 0.01 + 0.99 * (1 - done) / 0.2)


def _trained_state(network: nn.Module) -> dict[str, Tensor]:
    """Trained weights and buffers; frozen weights are not part of a checkpoint."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {name: t for name, t in network.state_dict().items() if name not in frozen}
