"""Where the networks of a training come from, decided once.

Read by `build` (which opens them), by the pre-flight checks (which read headers) and by planning
(which needs sizes alone).
"""

from pathlib import Path
from typing import Literal, NamedTuple, final

from wuerstchen.config import Config
from wuerstchen.training.stage import RunName
from wuerstchen.weights.hub import find
from wuerstchen.weights.layout import ComponentName

Kind = Literal["new", "base", "finished", "pretrained", "published"]
"""base: a model to start from; finished: the model folder of this training; pretrained: the run
folder of a pretraining; published: a CLIP text model with its tokenizer in one folder."""


@final
class Origin(NamedTuple):
    """Where one network comes from."""

    component: ComponentName
    kind: Kind
    folder: str = ""
    """Empty for a new network."""
    key: str = ""
    """The config key that names the folder."""

    @property
    def path(self) -> Path:
        """The folder on this machine; a base may be a hub id or the bundled model."""
        return find(self.folder) if self.kind == "base" else Path(self.folder)


@final
class StageParts(NamedTuple):
    """The networks as each stage starts to train them; text encoders as they are read."""

    stage_a: Origin
    compressor: Origin
    stage_b: Origin
    stage_c: Origin
    text_b: Origin | None
    """None: Stage B reads no text."""
    text_c: Origin
    trains_text: bool
    """Whether the text encoder of Stage C is trained with it, all of its weights."""


def run_folder(config: Config, name: RunName) -> Path:
    """Where a run keeps its checkpoints and its log."""
    return config.folder / "runs" / name


def resolve(config: Config) -> StageParts:
    """Where every network of a training comes from."""
    stage_b, stage_c = config.stage_b, config.stage_c
    compressor = _start("compressor", "stage_b", stage_b.training.init_from)
    if stage_b.pretraining is not None:
        compressor = _pretrained("compressor", config, "b-pretraining")
    return StageParts(
        stage_a=_start("stage_a", "stage_a", config.stage_a.training.init_from),
        compressor=compressor,
        stage_b=_start("stage_b", "stage_b", stage_b.training.init_from),
        stage_c=_start("stage_c", "stage_c", stage_c.training.init_from),
        text_b=_text_b(config) if stage_b.training.text_conditioning else None,
        text_c=_text_c(config),
        trains_text=not config.text.pretrained
        and stage_c.training.lora is None
        and stage_c.training.train_text_encoder,
    )


def finished(component: ComponentName, config: Config) -> Origin:
    """A network that an earlier stage left in the model folder."""
    return Origin(component, "finished", str(config.folder))


def _text_b(config: Config) -> Origin:
    if config.text.pretrained_b:
        return Origin("text_b", "published", config.text.pretrained_b, "text.pretrained_b")
    if config.text.pretrained:
        return Origin("text_b", "published", config.text.pretrained, "text.pretrained")
    return _start("text_b", "stage_b", config.stage_b.training.init_from)


def _text_c(config: Config) -> Origin:
    if config.text.pretrained:
        return Origin("text_c", "published", config.text.pretrained, "text.pretrained")
    if config.stage_c.pretraining is not None:
        return _pretrained("text_c", config, "c-pretraining")
    return _start("text_c", "stage_c", config.stage_c.training.init_from)


def _start(component: ComponentName, section: str, init_from: str) -> Origin:
    if not init_from:
        return Origin(component, "new")
    return Origin(component, "base", init_from, f"{section}.training.init_from")


def _pretrained(component: ComponentName, config: Config, name: RunName) -> Origin:
    return Origin(component, "pretrained", str(run_folder(config, name)))
