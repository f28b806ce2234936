"""The plan of a whole road: for each training what it needs, and what all of it costs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from wuerstchen.config import Config, TrainingConfig
from wuerstchen.errors import ConfigError
from wuerstchen.planning.assumptions import Assumptions
from wuerstchen.planning.devices import shown_bytes
from wuerstchen.planning.estimate import Costs, costs, together
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.memory import (
    Memory,
    Spread,
    count_flops,
    count_once,
    count_parameters,
)
from wuerstchen.planning.micro_batch import largest_micro
from wuerstchen.planning.outline import Outline
from wuerstchen.planning.sizes import missing_starts
from wuerstchen.planning.steps import outlines
from wuerstchen.planning.trace import added, total
from wuerstchen.training.stage import RunName


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One training."""

    step: RunName
    images: int
    batch: int
    micro: int
    """Images at once on a device."""
    accumulate: int
    """Micro-batches before the optimizer steps."""
    bf16: bool
    sharded: bool
    trained: int
    """Parameters that learn, ..."""
    frozen: int
    """... and that do not."""
    flops: dict[str, float]
    """Of one image: frozen, forward, backward (what checkpoints repeat included)."""
    once: float
    """FLOPs of all devices before the first step: what a base draws of the class of a subject."""
    memory: Memory
    room: int
    remedies: tuple[str, ...]
    """What makes this step need less of a device."""
    costs: Costs

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.room

    @property
    def trouble(self) -> str | None:
        """What to do where not even one image fits, in a sentence."""
        if self.fits:
            return None
        *others, last = self.remedies
        return (
            f"Stage {self.step} does not fit: one image at a time needs "
            f"{shown_bytes(self.memory.total)} on each device, of which "
            f"{shown_bytes(self.memory.activations)} are activations, but "
            f"{shown_bytes(self.room)} can be planned with; take {', '.join(others)} or {last}."
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All trainings of a config."""

    name: str
    assumptions: Assumptions
    steps: tuple[StepPlan, ...]
    taken_over: dict[str, str]
    """Stages that are not trained, and the folder that they come from."""
    words: tuple[str, ...]
    """What all of it rests on, each a sentence."""

    @property
    def costs(self) -> Costs:
        return together([step.costs for step in self.steps])

    def to_dict(self) -> dict[str, object]:
        """For JSON; bytes, FLOPs, hours, kWh and kg as numbers."""
        steps = [
            {
                **asdict(step),
                "memory": {**asdict(step.memory), "total": step.memory.total},
                "fits": step.fits,
            }
            for step in self.steps
        ]
        return {
            "config": self.name,
            "assumptions": {**asdict(self.assumptions), "words": list(self.words)},
            "steps": steps,
            "taken_over": self.taken_over,
            "costs": asdict(self.costs),
        }


def plan(config: Config, assumptions: Assumptions) -> Plan:
    """What every training of `config` needs.

    Where a stage starts from a model, its sizes are read there. Raises ConfigError where devices
    cannot share a batch equally or a text encoder's sizes are not known, and ModelFolderError
    where a start lacks what is taken of it.
    """
    made: list[StepPlan] = []
    taken_over: dict[str, str] = {}
    for outline in outlines(config):
        if outline.recipe.images == 0:
            taken_over[outline.name] = outline.recipe.init_from
        else:
            made.append(_plan_step(outline, assumptions))
    return Plan(
        name=config.name,
        assumptions=assumptions,
        steps=tuple(made),
        taken_over=taken_over,
        words=(*missing_starts(config), *assumptions.words()),
    )


def _plan_step(outline: Outline, assumptions: Assumptions) -> StepPlan:
    recipe = outline.recipe
    setting = Setting("accelerator", bf16=recipe.precision != "fp32")
    spread = Spread(assumptions.devices, _is_sharded(outline, assumptions))
    share = _share(recipe, outline.name, assumptions)
    once = {
        kind: count * assumptions.devices for kind, count in count_once(outline, setting).items()
    }
    batches = largest_micro(outline, setting, spread, share, assumptions.room)
    flops = count_flops(outline, setting)
    parameters = count_parameters(outline)
    return StepPlan(
        step=outline.name,
        images=recipe.images,
        batch=recipe.batch_size,
        micro=batches.micro,
        accumulate=batches.accumulate,
        bf16=setting.bf16,
        sharded=spread.sharded,
        trained=parameters.trained,
        frozen=parameters.frozen,
        flops={phase: total(counts) for phase, counts in flops.items()},
        once=total(once),
        memory=batches.memory,
        room=assumptions.room,
        remedies=tuple(_remedies(outline, sharded=spread.sharded)),
        costs=costs(
            added([once, *({k: n * recipe.images for k, n in f.items()} for f in flops.values())]),
            assumptions.device,
            assumptions.devices,
            utilisation=assumptions.utilisation,
            grid=assumptions.grid,
            price=assumptions.price,
        ),
    )


def _is_sharded(outline: Outline, assumptions: Assumptions) -> bool:
    if assumptions.devices == 1:
        return False
    return outline.recipe.sharded or (assumptions.sharded and outline.name != "a")


def _share(recipe: TrainingConfig, name: RunName, assumptions: Assumptions) -> int:
    """Images of a step on each device."""
    parts = assumptions.devices * recipe.gradient_accumulation
    if recipe.batch_size % parts:
        sharers = "1 device" if assumptions.devices == 1 else f"{assumptions.devices} devices"
        times = (
            ""
            if recipe.gradient_accumulation == 1
            else f" with accumulate {recipe.gradient_accumulation}"
        )
        raise ConfigError(
            f"The batch of stage {name} is {recipe.batch_size}, which {sharers}{times} cannot "
            f"share equally; set it to a multiple of {parts}."
        )
    return recipe.batch_size // assumptions.devices


def _remedies(outline: Outline, *, sharded: bool) -> Iterator[str]:
    """What can be done where one image is too much for a device, of what this step has."""
    yield "a larger device"
    if outline.name != "a" and not sharded:  # its codes are placed by hand, which needs it whole
        yield "--sharded with more devices"
    recipe = outline.recipe
    checkpointed = getattr(recipe, "gradient_checkpointing", None)
    if checkpointed is False:
        yield f"stage_{outline.name}.training.gradient_checkpointing=true"
    if outline.name == "a":
        yield "smaller crops by stage_a.training.crop_size"
    else:
        yield "smaller images by data.size"
