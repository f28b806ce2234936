"""What of a stage learns: its networks, their optimizers, and the average of the trained one."""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wuerstchen.config import TrainingConfig
from wuerstchen.training.processes import share_batch_norms
from wuerstchen.training.stage import Stage

Average = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]
"""(kept, new, updates so far): moves the kept weights towards the new ones."""

State = dict[str, object]


class Learner:
    """Networks by name; the one called `stage.trained` is exported as the average of its steps."""

    def __init__(self, stage: Stage, accelerator: Accelerator) -> None:
        self.recipe = stage.training
        self._accelerator, self._trained = accelerator, stage.trained
        self.networks = stage.networks()
        for network in self.networks.values():
            network.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            if accelerator.num_processes > 1:
                share_batch_norms(network)
            network.train()  # weights that training starts from come in eval mode
        self._average = AveragedModel(
            self.networks[stage.trained],
            multi_avg_fn=_averager(self.recipe.ema),
            use_buffers=True,  # the statistics of BatchNorms have to belong to the averaged weights
        )
        self._optimizers = {name: self._optimizer(stage, name) for name in self.networks}

    def wrap(self) -> dict[str, nn.Module]:
        """The networks as Accelerate wraps them for its devices; after `load`, if there is one."""
        prepare = self._accelerator.prepare_model
        return {name: prepare(network) for name, network in self.networks.items()}

    @property
    def averaged(self) -> nn.Module:
        """The averaged network, ready to be looked at and exported."""
        network: nn.Module = self._average.module
        return network.eval()

    @property
    def rate(self) -> float:
        """Learning rate of the next update."""
        rate: float = next(iter(self._optimizers.values())).param_groups[0]["lr"]
        return rate

    def set_rate(self, step: int, images: int) -> None:
        rate = self.recipe.learning_rate * schedule(self.recipe, step, images)
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate"]

    def clip(self, name: str) -> float:
        """Shorten the gradient of network `name` to the recipe's norm; returns what it was."""
        parameters = [p for group in self._optimizers[name].param_groups for p in group["params"]]
        return float(self._accelerator.clip_grad_norm_(parameters, self.recipe.clip))

    def update(self, name: str) -> None:
        self._optimizers[name].step()
        self._optimizers[name].zero_grad(set_to_none=True)

    def average(self) -> None:
        """Let the averaged network follow the trained one."""
        self._average.update_parameters(self.networks[self._trained])

    def state(self) -> State:
        return {
            "networks": {name: net.state_dict() for name, net in self.networks.items()},
            "average": self._average.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self._optimizers.items()},
        }

    def load(self, state: State) -> None:
        """Raises RuntimeError, KeyError or ValueError for the state of other networks."""
        saved = copy.copy(state)
        networks, optimizers = saved["networks"], saved["optimizers"]
        assert isinstance(networks, dict) and isinstance(optimizers, dict)
        for name, network in self.networks.items():
            network.load_state_dict(networks[name])
            self._optimizers[name].load_state_dict(optimizers[name])
        self._average.load_state_dict(saved["average"])  # type: ignore[arg-type]

    def _optimizer(self, stage: Stage, name: str) -> torch.optim.Optimizer:
        groups = [
            {"params": group.parameters, "rate": group.rate}
            for group in stage.parameter_groups(name)
        ]
        recipe = self.recipe
        return torch.optim.AdamW(
            groups, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
        )


def schedule(recipe: TrainingConfig, step: int, images: int) -> float:
    """What the learning rate is multiplied by: linear warm-up, then constant or cosine."""
    warm = min(1.0, step / max(1, recipe.warmup))
    if recipe.decay == "constant":
        return warm
    return warm * (0.505 + 0.495 * math.cos(math.pi * min(1.0, images / recipe.images)))


def _averager(decay: float) -> Average:
    """Exponential average whose memory grows with the run, up to `decay`.

    Without that growth a short run would still remember its random start.
    """

    @torch.no_grad()
    def average(kept: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        if not kept[0].is_floating_point():  # counters
            torch._foreach_copy_(list(kept), list(new))
            return
        forget = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(kept), list(new), forget)

    return average
