"""The plan of all trainings of a config: what each needs, and what they cost together."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import final

from wuerstchen.config import Config, TrainingConfig
from wuerstchen.hardware import shown_bytes
from wuerstchen.planning.assumptions import Assumptions
from wuerstchen.planning.blank import missing_bases, with_base_sizes
from wuerstchen.planning.dry_run import DryRun
from wuerstchen.planning.estimate import Costs, costs, total_costs
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.memory import Layout, Memory, count_parameters, largest_micro
from wuerstchen.planning.trace import added, total
from wuerstchen.training.preflight import device_batch
from wuerstchen.training.stage import RUN_ORDER, RunName, training_of


@final
@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """One training."""

    name: RunName
    images: int
    batch: int
    micro: int
    """Images at once on a device."""
    accumulation: int
    """Micro-batches before the optimizer steps."""
    bf16: bool
    sharded: bool
    trained: int
    """Parameters that are trained, ..."""
    frozen: int
    """... and that are not."""
    flops: dict[str, float]
    """For one image: frozen, forward, backward (with what checkpoints recompute)."""
    class_flops: float
    """Of all devices before the first step, which generate the class of a subject."""
    memory: Memory
    available: int
    """Bytes that a step may use."""
    remedies: tuple[str, ...]
    """What reduces the memory of this training."""
    costs: Costs

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.available

    @property
    def problem(self) -> str | None:
        """What to do if not even one image fits, in a sentence."""
        if self.fits:
            return None
        *others, last = self.remedies
        return (
            f"Stage {self.name} does not fit: one image at a time needs "
            f"{shown_bytes(self.memory.total)} on each device, of which "
            f"{shown_bytes(self.memory.activations)} are activations, but "
            f"{shown_bytes(self.available)} are available; use {', '.join(others)} or {last}."
        )


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """All trainings of a config."""

    name: str
    assumptions: Assumptions
    runs: tuple[RunPlan, ...]
    reused: dict[str, str]
    """Stages that are not trained, and the model that they are copied from."""
    notes: tuple[str, ...]
    """What all of it assumes, in sentences."""

    @property
    def costs(self) -> Costs:
        return total_costs([run.costs for run in self.runs])

    def to_dict(self) -> dict[str, object]:
        """For JSON; bytes, FLOPs, hours, kWh and kg as numbers."""
        runs = [
            asdict(run)
            | {"memory": asdict(run.memory) | {"total": run.memory.total}, "fits": run.fits}
            for run in self.runs
        ]
        return {
            "config": self.name,
            "assumptions": {**asdict(self.assumptions), "notes": list(self.notes)},
            "runs": runs,
            "reused": self.reused,
            "costs": asdict(self.costs),
        }


def plan(config: Config, assumptions: Assumptions) -> Plan:
    """What every training of `config` needs.

    The sizes of a base model are read from its configs. Raises TrainingError where a batch
    cannot be divided equally among devices, ConfigError where a text encoder's sizes are unknown,
    and ModelFolderError where a base lacks a component.
    """
    notes = (*missing_bases(config), *assumptions.sentences())
    sized = with_base_sizes(config)
    waiting: list[RunName] = []
    reused: dict[str, str] = {}
    for name in RUN_ORDER:
        training = training_of(config, name)
        if training is not None and training.images == 0:
            reused[name] = training.init_from
        elif training is not None:
            device_batch(name, training, assumptions.devices)  # before anything is built
            waiting.append(name)
    runs = [_plan_run(DryRun(name, sized), assumptions) for name in waiting]
    return Plan(
        name=config.name, assumptions=assumptions, runs=tuple(runs), reused=reused, notes=notes
    )


def _plan_run(run: DryRun, assumptions: Assumptions) -> RunPlan:
    name, training = run.stage.name, run.stage.training
    setting = Setting("accelerator", bf16=training.precision != "fp32")
    layout = Layout(assumptions.devices, _is_sharded(name, training, assumptions))
    batch = device_batch(name, training, assumptions.devices)
    class_flops = {kind: n * assumptions.devices for kind, n in run.class_flops.items()}
    batches = largest_micro(run, setting, layout, batch, assumptions.available)
    flops = run.flops(setting)
    parameters = count_parameters(run)
    of_steps = [{kind: n * training.images for kind, n in f.items()} for f in flops.values()]
    return RunPlan(
        name=name,
        images=training.images,
        batch=training.batch_size,
        micro=batches.micro,
        accumulation=batches.accumulation,
        bf16=setting.bf16,
        sharded=layout.sharded,
        trained=parameters.trained,
        frozen=parameters.frozen,
        flops={phase: total(counts) for phase, counts in flops.items()},
        class_flops=total(class_flops),
        memory=batches.memory,
        available=assumptions.available,
        remedies=tuple(_remedies(name, training, sharded=layout.sharded)),
        costs=costs(added([class_flops, *of_steps]), assumptions),
    )


def _is_sharded(name: RunName, training: TrainingConfig, assumptions: Assumptions) -> bool:
    if assumptions.devices == 1:
        return False
    return training.sharded or (assumptions.sharded and name != "a")


def _remedies(name: RunName, training: TrainingConfig, *, sharded: bool) -> Iterator[str]:
    """What helps this training if one image is too much for a device."""
    yield "a larger device"
    if name != "a" and not sharded:  # Stage A's codebook is updated without gradients
        yield "--sharded with more devices"
    if getattr(training, "gradient_checkpointing", None) is False:
        yield f"stage_{name}.training.gradient_checkpointing=true"
    smaller_crops = "smaller crops by stage_a.training.crop_size"
    yield smaller_crops if name == "a" else "smaller images by data.size"
