"""The plan of a whole road: for each training what it needs, and what all of it costs."""

from dataclasses import asdict, dataclass

from wuerstchen.config import Config, TrainingConfig
from wuerstchen.errors import ConfigError
from wuerstchen.planning.costs import ARITHMETIC, UTILISATION, Costs, costs, together
from wuerstchen.planning.devices import GIB, Device, shown_bytes
from wuerstchen.planning.fitting import largest_micro
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.memory import Memory, Spread, count_flops, count_parameters
from wuerstchen.planning.outline import Outline
from wuerstchen.planning.sizes import missing_starts
from wuerstchen.planning.steps import outlines
from wuerstchen.planning.trace import added, total
from wuerstchen.power import WORLD_GRAMS
from wuerstchen.training.stage import Step

RESERVE = GIB
"""Of the device's memory, for its driver and for what convolutions work with."""

SAFE = 0.9
"""Share of the rest that is planned with: what is freed in pieces cannot all be used again."""


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What the plan takes for given. Every figure of it rests on these and on the config."""

    device: Device
    devices: int = 1
    memory: int | None = None
    """Bytes of a device; None: as the device has them."""
    sharded: bool = False
    """FSDP2 for Stages B and C, whatever the config says."""
    utilisation: float = UTILISATION
    grid: float = WORLD_GRAMS
    """g CO2 per kWh."""
    price: float | None = None
    """Of an hour of one device."""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"--mfu must be above 0 and at most 1, found {self.utilisation}.")
        if self.devices < 1:
            raise ConfigError(f"--devices must be at least 1, found {self.devices}.")
        for name, value in (("--grid", self.grid), ("--price", self.price or 0)):
            if value < 0:
                raise ConfigError(f"{name} must not be negative, found {value}.")

    @property
    def room(self) -> int:
        """Bytes that a step may take."""
        whole = self.device.memory if self.memory is None else self.memory
        return int(SAFE * max(0, whole - RESERVE))

    def words(self) -> list[str]:
        """Each as a sentence."""
        device, reserve = self.device, RESERVE / GIB
        found = [
            f"Device: {device.name}, {device.bf16 / 1e12:g} TFLOP/s in bf16, {device.watts:g} W "
            f"({device.source}).",
            f"Speed: {self.utilisation:.0%} of that peak; other numbers as fast, up to "
            f"{ARITHMETIC:.0%} of their own. Devices share the work without loss.",
            "Operations: matrix products, convolutions and attention, each picture encoded every "
            "time it is seen, unless data.encoded names what was encoded ahead.",
            f"Memory: {SAFE:.0%} of what is left beside {reserve:g} GiB for the driver is planned "
            "with; looks and checkpoints are left out.",
            "Energy: the devices alone at their full power; host, cooling and network are left "
            f"out. {self.grid:g} g CO2 per kWh.",
        ]
        if self.price is not None:
            found.append(f"Money: {self.price:g} for an hour of one device.")
        return found


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One training."""

    step: Step
    images: int
    batch: int
    micro: int
    """Pictures at once on a device."""
    accumulate: int
    """Micro-batches before the optimizer steps."""
    bf16: bool
    sharded: bool
    trained: int
    """Parameters that learn, ..."""
    frozen: int
    """... and that do not."""
    flops: dict[str, float]
    """Of one picture: frozen, forward, backward (what checkpoints repeat included)."""
    memory: Memory
    room: int
    costs: Costs

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.room

    @property
    def trouble(self) -> str | None:
        """What to do where not even one picture fits, in a sentence."""
        if self.fits:
            return None
        return (
            f"Stage {self.step} does not fit: one picture at a time needs "
            f"{shown_bytes(self.memory.total)} on each device, of which "
            f"{shown_bytes(self.memory.activations)} are activations, but "
            f"{shown_bytes(self.room)} can be planned with; take a larger device, --sharded with "
            "more devices, gradient_checkpointing=true for Stages B and C, or smaller pictures."
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
            taken_over[outline.name] = outline.recipe.start
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
    batches = largest_micro(outline, setting, spread, share, assumptions.room)
    flops = count_flops(outline, setting)
    parameters = count_parameters(outline)
    return StepPlan(
        step=outline.name,
        images=recipe.images,
        batch=recipe.batch,
        micro=batches.micro,
        accumulate=batches.accumulate,
        bf16=setting.bf16,
        sharded=spread.sharded,
        trained=parameters.trained,
        frozen=parameters.frozen,
        flops={phase: total(counts) for phase, counts in flops.items()},
        memory=batches.memory,
        room=assumptions.room,
        costs=costs(
            {kind: count * recipe.images for kind, count in added(flops.values()).items()},
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


def _share(recipe: TrainingConfig, name: Step, assumptions: Assumptions) -> int:
    """Pictures of a step on each device."""
    if recipe.batch % assumptions.devices:
        raise ConfigError(
            f"The batch of stage {name} is {recipe.batch}, which {assumptions.devices} devices "
            f"cannot share equally; set it to a multiple of {assumptions.devices}."
        )
    return recipe.batch // assumptions.devices
