"""The whole configuration: every key, its default and its meaning, checked where it is born.

Values come from three places, later ones win: the defaults below, a YAML file, and `a.b=c` words
of the command line. Unknown keys are errors that suggest the nearest known key.
"""

import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wuerstchen.errors import ConfigError
from wuerstchen.geometry import SIZE_STEP

Precision = Literal["auto", "fp32", "bf16"]
LossWeight = Literal["p2", "data"]
"""p2: what trained the released weights; data: error of the data itself (see diffusion.py)."""


class Section(BaseModel):
    """A part of the config: immutable, and without room for keys that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataConfig(Section):
    """Pictures with captions."""

    path: str = ""
    """A folder of pictures (also with metadata.jsonl or .csv), or webdataset tars ({a..b}, *)."""
    size: int = Field(default=128, gt=0)
    """Side of the square training pictures in pixels, a multiple of 128."""
    background: str = "white"
    """What shows through transparent pictures: a colour name or #rrggbb."""
    sample_by: str | None = None
    """A side field (JSON key or metadata column) whose values take part equally often."""
    test_share: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of the pictures held out where the data names no test split of its own."""
    memory: float = Field(default=2.0, ge=0)
    """GiB of decoded pictures kept in memory, so that small sets are decoded once."""

    @model_validator(mode="after")
    def _fits_the_grid(self) -> "DataConfig":
        if self.size % SIZE_STEP:
            raise ValueError(f"data.size must be a multiple of {SIZE_STEP}, found {self.size}")
        return self


class TrainingConfig(Section):
    """How one stage is trained. Progress is counted in pictures, so that batches may change."""

    images: int = Field(ge=0)
    """Pictures to see in all, repeats included; 0 takes over the weights of `start` as they are."""
    start: str = ""
    """A model folder whose weights of this stage training starts from; empty: from scratch."""
    batch: int = Field(default=32, gt=0)
    """Pictures per optimizer step, over all devices and accumulation steps together."""
    accumulate: int = Field(default=1, gt=0)
    """Backward passes per optimizer step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: int = Field(default=10_000, ge=0)
    """Optimizer steps in which the learning rate grows from zero."""
    decay: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up; cosine ends at a hundredth."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of a gradient."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay per step of the averaged weights, which are the ones that are exported."""
    precision: Precision = "auto"
    """auto: bf16 on accelerators that have it, fp32 elsewhere."""
    gradient_checkpointing: bool = False
    """Trades a third more time for most of the memory of activations."""
    save_every: int = Field(default=100_000, gt=0)
    """Pictures between two checkpoints."""
    look_every: int = Field(default=100_000, gt=0)
    """Pictures between two looks: held-out loss and a grid of pictures."""
    look_at: int = Field(default=64, gt=0)
    """Held-out pictures per look."""

    @model_validator(mode="after")
    def _has_weights(self) -> "TrainingConfig":
        if self.images == 0 and not self.start:
            raise ValueError("training.images is 0 and training.start names no model folder")
        return self


class StageAModel(Section):
    """VQGAN f4. Defaults are the published sizes (18,406,894 parameters)."""

    width: int = Field(default=384, gt=0, multiple_of=2)
    """Channels at a quarter of the picture's side; half as many at half the side."""
    depth: int = Field(default=12, gt=0)
    """Blocks of the decoder at the latent's resolution."""
    latent_channels: Literal[4] = 4
    codebook: int = Field(default=8192, gt=1)
    scale: float = Field(default=0.3764, gt=0)
    """Latents are divided by this after encoding; training measures it anew."""


class StageATraining(TrainingConfig):
    """Recipe of the paper, appendix E.1."""

    images: int = Field(default=500_000 * 256, ge=0)
    batch: int = Field(default=256, gt=0)
    crop: int = Field(default=128, gt=0, multiple_of=4)
    """Side of the training crops in pixels, a multiple of 4."""
    quantise_drop: float = Field(default=0.1, ge=0, le=1)
    """Share of the pictures whose latents skip the codebook (section 3.1: 10 %)."""
    commitment: float = Field(default=0.25, ge=0)
    codebook_weight: float = Field(default=1.0, ge=0)
    perceptual: Literal["vgg16", "pyramid"] = "pyramid"
    """vgg16 needs `vgg16_weights`; pyramid compares several scales and needs no weights."""
    vgg16_weights: str = ""
    """A safetensors file of VGG16 features with torchvision key names."""
    perceptual_weight: float = Field(default=0.1, ge=0)
    adversarial_weight: float = Field(default=0.01, ge=0)
    adversarial_from: int = Field(default=10_000 * 256, ge=0)
    """Pictures after which the critic joins."""
    critic_width: int = Field(default=64, gt=0)
    """Channels of the critic's first layer."""
    critic_depth: int = Field(default=6, gt=0)
    revive_after: int = Field(default=100, gt=0)
    """Optimizer steps without use after which a code is placed anew on a latent of the batch."""


class StageAConfig(Section):
    model: StageAModel = StageAModel()
    training: StageATraining = StageATraining()


class CompressorModel(Section):
    """EfficientNetV2-S with a 1x1 mapper (20,197,968 parameters without affine)."""

    channels: int = Field(default=16, gt=0)
    """Channels of the semantics."""
    width: float = Field(default=1.0, gt=0, le=1)
    """Multiplies the channels of every backbone stage (rounded to multiples of 8)."""
    depth: float = Field(default=1.0, gt=0, le=1)
    """Multiplies the blocks of every backbone stage (at least 1 each)."""
    affine: bool = True
    """Whether the last BatchNorm has weights. New models fix them so that the semantics have
    the scale 42 and shift -1 of the published ones."""


class StageBModel(Section):
    """DiffNeXt. Defaults are the published sizes (1,055,365,280 parameters)."""

    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    blocks: tuple[int, ...] = (4, 4, 14, 4)
    heads: tuple[int, ...] = (0, 10, 20, 20)
    """Attention heads per level; 0: a level without attention."""
    semantics: tuple[bool, ...] = (False, True, True, True)
    """Levels that are joined with the semantics."""
    semantic_channels: int = Field(default=16, gt=0)
    condition_width: int = Field(default=1024, gt=0)
    text_width: int = Field(default=1024, gt=0)
    time_width: int = Field(default=64, gt=3, multiple_of=2)
    patch: int = Field(default=2, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _levels_agree(self) -> "StageBModel":
        lengths = {len(self.widths), len(self.blocks), len(self.heads), len(self.semantics)}
        if len(lengths) > 1:
            raise ValueError("widths, blocks, heads and semantics must name equally many levels")
        for width, heads in zip(self.widths, self.heads, strict=True):
            if heads and width % heads:
                raise ValueError(f"width {width} must be a multiple of its {heads} heads")
        return self


class StageBTraining(TrainingConfig):
    """Compressor and Stage B jointly (appendix E.2). Rates are those of version 1's code."""

    images: int = Field(default=457_000 * 512, ge=0)
    batch: int = Field(default=512, gt=0)
    weight: LossWeight = "p2"
    semantics_drop: float = Field(default=0.05, ge=0, le=1)
    """Share of the pictures whose semantics are replaced by zeros."""
    semantics_noise: float = Field(default=0.3, ge=0, le=1)
    """Share of the remaining pictures whose semantics are noised, at times up to 0.5."""
    text: bool = True
    """Whether Stage B reads the caption. Small models do without: the authors found that its
    removal costs nothing (50 % preference), and their text encoder is trained later."""
    freeze_compressor: bool = False
    """Train Stage B alone, on a compressor that stays as it is: the semantics keep their meaning,
    and a Stage C that draws them goes on to fit."""
    compressor_weights: str = ""
    """A safetensors file of EfficientNetV2-S features (ImageNet) with torchvision key names."""


class CompressorRehearsalTraining(TrainingConfig):
    """The compressor with a small decoder that is thrown away, before it meets Stage B.

    For compressors that start without ImageNet weights.
    """

    width: int = Field(default=192, gt=0)
    depth: int = Field(default=4, gt=0)


class StageBConfig(Section):
    model: StageBModel = StageBModel()
    rehearsal: CompressorRehearsalTraining | None = None
    """Teaches a new compressor before the joint training; not together with `training.start`."""
    training: StageBTraining = StageBTraining()

    @model_validator(mode="after")
    def _one_beginning(self) -> "StageBConfig":
        if self.rehearsal is not None and self.training.start:
            raise ValueError(
                f"stage_b.training.start is {self.training.start!r}, but stage_b.rehearsal would "
                "train another compressor; set one of them to null or empty"
            )
        if self.training.freeze_compressor and self.rehearsal is None and not self.training.start:
            raise ValueError(
                "stage_b.training.freeze_compressor is true, but nothing brings a trained "
                "compressor; set stage_b.training.start to a model folder, or add a rehearsal"
            )
        return self


class StageCModel(Section):
    """The prior. Defaults are the released sizes (993,636,896 parameters)."""

    semantic_channels: int = Field(default=16, gt=0)
    width: int = Field(default=1536, gt=0)
    depth: int = Field(default=32, gt=0)
    """Times convolution, time and attention follow each other."""
    heads: int = Field(default=24, gt=0)
    text_width: int = Field(default=1280, gt=0)
    time_width: int = Field(default=64, gt=3, multiple_of=2)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> "StageCModel":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class StageCTraining(TrainingConfig):
    """The text-conditional stage on cached semantics (appendix E.3)."""

    images: int = Field(default=500_000 * 1536, ge=0)
    batch: int = Field(default=1536, gt=0)
    weight: LossWeight = "p2"
    text_drop: float = Field(default=0.05, ge=0, le=1)
    """Share of the pictures whose caption is left empty, decided for each picture."""
    late_times: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training times above 0.6, where the caption decides; null: as published,
    45 %."""
    head: Literal["difference", "published"] = "difference"
    """difference holds the B half of the output layer at zero, which makes the published head
    (x - A) / (|1 - B| + 1e-5) plain x - A; published lets it learn."""


class TextRehearsalTraining(TrainingConfig):
    """The small text encoder with a network that guesses semantics and is thrown away, before it
    meets Stage C."""

    width: int = Field(default=512, gt=0)


class StageCConfig(Section):
    model: StageCModel = StageCModel()
    rehearsal: TextRehearsalTraining | None = None
    """Teaches a new text encoder before the diffusion; not together with `training.start`, nor
    with `text.pretrained`."""
    training: StageCTraining = StageCTraining()

    @model_validator(mode="after")
    def _one_beginning(self) -> "StageCConfig":
        if self.rehearsal is not None and self.training.start:
            raise ValueError(
                f"stage_c.training.start is {self.training.start!r}, but stage_c.rehearsal would "
                "train another text encoder; set one of them to null or empty"
            )
        return self


class TextConfig(Section):
    """The text encoder: a small one trained with Stage C, or a published one, loaded frozen."""

    pretrained: str = ""
    """Folder of a CLIP text model and tokenizer for Stage C; empty: train a small one."""
    pretrained_b: str = ""
    """The same for Stage B, which in the released system has an encoder of its own."""
    vocabulary: int = Field(default=4096, ge=514)
    """Tokens of the small tokenizer, learned from the captions; 514 are marks and letters."""
    length: int = Field(default=77, gt=3)
    """Tokens per caption, start and end included."""
    width: int = Field(default=256, gt=0)
    depth: int = Field(default=4, gt=0)
    heads: int = Field(default=4, gt=0)


class Config(Section):
    """A whole run: data in, one model folder out."""

    name: str = "model"
    seed: int = 0
    output: str = ""
    """The model folder; `models/NAME` when empty. Runs keep their state in its `runs/` folder."""
    data: DataConfig = DataConfig()
    text: TextConfig = TextConfig()
    compressor: CompressorModel = CompressorModel()
    stage_a: StageAConfig = StageAConfig()
    stage_b: StageBConfig = StageBConfig()
    stage_c: StageCConfig = StageCConfig()
    prompts: tuple[str, ...] = ()
    """What Stage C is asked to draw at every look; captions of the data when empty."""

    @property
    def folder(self) -> Path:
        return Path(self.output or f"models/{self.name}")

    @model_validator(mode="after")
    def _crops_fit(self) -> "Config":
        if self.stage_a.training.crop > self.data.size:
            raise ValueError(
                f"stage_a.training.crop is {self.stage_a.training.crop}, but the pictures have "
                f"data.size {self.data.size}; the crop must not be larger"
            )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> "Config":
        for stage, found in (
            ("stage_b", self.stage_b.model.semantic_channels),
            ("stage_c", self.stage_c.model.semantic_channels),
        ):
            if found != self.compressor.channels:
                raise ValueError(
                    f"{stage}.model.semantic_channels is {found}, but compressor.channels is "
                    f"{self.compressor.channels}; they must be equal"
                )
        if not self.text.pretrained and self.stage_c.model.text_width != self.text.width:
            raise ValueError(
                f"stage_c.model.text_width is {self.stage_c.model.text_width}, but text.width is "
                f"{self.text.width}; they must be equal where the text encoder is trained"
            )
        if self.text.pretrained and self.stage_c.rehearsal is not None:
            raise ValueError(
                f"text.pretrained is {self.text.pretrained!r}, which stays as it is, but "
                "stage_c.rehearsal would train a small text encoder; set one of them to null or "
                "empty"
            )
        if self.stage_b.training.text and not (self.text.pretrained_b or self.text.pretrained):
            raise ValueError(
                "stage_b.training.text is true, but no text encoder exists before Stage C is "
                "trained; set it to false, or text.pretrained_b to a folder"
            )
        if not self.stage_b.training.text and not self.text.pretrained_b:
            if self.stage_b.model.text_width != self.stage_c.model.text_width:
                raise ValueError(
                    f"stage_b.model.text_width is {self.stage_b.model.text_width}, but "
                    f"stage_c.model.text_width is {self.stage_c.model.text_width}; they must be "
                    "equal where both stages share one text encoder"
                )
        return self


def load(source: str, overrides: Sequence[str] = ()) -> Config:
    """Read a config: `source` is a YAML file or the name of a shipped config (`tiny`).

    overrides  words such as `data.path=pictures` or `stage_b.training.batch=16`

    Raises ConfigError for a file that is not there, an unknown key or a value that cannot work.
    """
    values = _read_yaml(_find(source))
    for word in overrides:
        _override(values, word)
    return parse(values, source)


def load_data(words: Sequence[str]) -> DataConfig:
    """The data section alone, from words such as `data.path=pictures`; ConfigError as in `load`."""
    values: dict[str, object] = {}
    for word in words:
        if not word.startswith("data."):
            raise ConfigError(
                f"Expected data.KEY=VALUE such as data.path=pictures, found {word!r}."
            )
        _override(values, word)
    try:
        return DataConfig.model_validate(values.get("data", {}))
    except ValidationError as error:
        raise ConfigError(_explain(error, "data")) from None


def parse(values: Mapping[str, object], source: str) -> Config:
    """Check `values` and make them a `Config`; `source` is named in errors."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error)}") from None


def dump(config: Config) -> str:
    """The resolved config as YAML: reading it again gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """Names of the configs that come with the package."""
    folder = files("wuerstchen.configs")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _find(source: str) -> str:
    if Path(source).is_file():
        try:
            return Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}: expected a YAML file, but {error}.") from None
    if source in shipped():
        return (files("wuerstchen.configs") / f"{source}.yaml").read_text(encoding="utf-8")
    raise ConfigError(
        f"Expected a YAML file or one of the shipped configs ({', '.join(shipped())}), "
        f"found neither at {source!r}."
    )


def _read_yaml(text: str) -> dict[str, object]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The config is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"A config must be a table of keys, found {type(values).__name__}.")
    return values


def _override(values: dict[str, object], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"Expected KEY=VALUE such as data.path=pictures, found {word!r}.")
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: {parent} is a value and not a section.")
        values = child
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        values[last] = text


def _explain(error: ValidationError, *section: str) -> str:
    """The first thing that pydantic found in a section of the config, as one sentence."""
    first = error.errors()[0]
    location = (*section, *first["loc"])
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}."
        return f"unknown key {key!r}; {hint}"
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ") + "."
    return f"{key}: {first['msg']}, found {first['input']!r}."


def _known_keys(location: Sequence[int | str]) -> list[str]:
    section: type[BaseModel] = Config
    for part in location:
        inner = section.model_fields[str(part)].annotation
        kinds = [kind for kind in (inner, *get_args(inner)) if isinstance(kind, type)]
        section = next(kind for kind in kinds if issubclass(kind, BaseModel))
    return list(section.model_fields)
