"""Laws of the configuration: three sources, one resolved file, helpful errors."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from pydantic import BaseModel, ValidationError
from torch import nn

from wuerstchen import config
from wuerstchen.config import Config, PrepareConfig
from wuerstchen.config.section import RENAMED
from wuerstchen.errors import ConfigError
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.discriminator import Discriminator
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC

SMALL: dict[str, object] = {
    "name": "mine",
    "text": {"width": 64},
    "stage_b": {
        "model": {"text_width": 64},
        "training": {"text_conditioning": False, "images": 1000},
    },
    "stage_c": {"model": {"text_width": 64}},
}
"""The smallest config with a trained text encoder."""


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return str(path)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(small: str) -> None:
    plain = config.load(small)
    assert plain.stage_b.training.images == 1000  # the file
    assert plain.stage_b.training.batch_size == 512  # the default
    over = config.load(small, ["stage_b.training.images=7", "data.path=some/images"])
    assert over.stage_b.training.images == 7
    assert over.data.path == "some/images"
    assert over.name == "mine"


@pytest.mark.parametrize("stage", ["stage_a", "stage_b", "stage_c"])
def test_naming_one_key_of_a_section_leaves_its_other_defaults_as_they_were(
    small: str, stage: str
) -> None:
    before = getattr(config.load(small), stage).training.model_dump()
    after = getattr(
        config.load(small, [f"{stage}.training.max_grad_norm=5"]), stage
    ).training.model_dump()
    assert after == {**before, "max_grad_norm": 5}


def test_the_later_override_wins(small: str) -> None:
    assert config.load(small, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("stage_b.model.widths=[320, 640, 1280, 1280]", (320, 640, 1280, 1280)),
        ("name=a=b", "a=b"),
        ("name=a: b: c", "a: b: c"),
        ("data.balance_by=null", None),
        ("stage_a.training.learning_rate=2e-4", 2e-4),
        ("stage_b.training.gradient_checkpointing=true", True),
    ],
)
def test_overrides_are_read_as_yaml_or_else_as_plain_text(
    small: str, word: str, value: object
) -> None:
    found: object = config.load(small, [word])
    for part in word.partition("=")[0].split("."):
        found = getattr(found, part)
    assert found == value


def test_the_resolved_file_reads_back_equal(small: str, tmp_path: Path) -> None:
    first = config.load(
        small, ["stage_a.training.images=5", "validation_prompts=[a fox, 'ein Würstchen']"]
    )
    path = tmp_path / "resolved.yaml"
    path.write_text(config.dump(first), encoding="utf-8")
    assert config.load(str(path)) == first
    assert config.dump(config.load(str(path))) == config.dump(first)


NEEDS_BASE = {name: ["base=some/model"] for name in ("lora", "subject")}
"""Configs that fine-tune a model named by the caller."""


@pytest.mark.parametrize("name", config.shipped())
def test_the_resolved_file_of_a_shipped_config_reads_back_equal(name: str, tmp_path: Path) -> None:
    first = config.load(name, NEEDS_BASE.get(name, []))
    path = tmp_path / "resolved.yaml"
    path.write_text(config.dump(first), encoding="utf-8")
    assert config.load(str(path)) == first


def test_a_config_is_immutable(small: str) -> None:
    loaded = config.load(small)
    with pytest.raises(ValidationError):
        loaded.data.size = 256  # type: ignore[misc]


@pytest.mark.parametrize(
    ("word", "key", "hint"),
    [
        ("nmae=x", "nmae", "name"),
        ("data.pth=x", "data.pth", "path"),
        ("stage_b.training.learning_rat=1", "stage_b.training.learning_rat", "learning_rate"),
        ("stage_c.modle.width=1", "stage_c.modle", "model"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    small: str, word: str, key: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{key}'; did you mean '{hint}'"):
        config.load(small, [word])


def sections(section: type[BaseModel], *path: str) -> Iterator[tuple[list[str], list[str]]]:
    """The path and the keys of `section` and of all sections inside it."""
    yield list(path), list(section.model_fields)
    for name, field in section.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections(kind, *path, name)


def renamed(root: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Old and new dotted name of every renamed key, in every section that it applies to."""
    for path, keys in sections(root):
        for old, new in RENAMED:
            if new in keys and old not in keys:
                yield ".".join([*path, old]), ".".join([*path, new])


def test_every_renamed_key_is_refused_by_its_new_name(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    for old, new in renamed(Config):
        values: object = 1
        for name in reversed(old.split(".")):
            values = {name: values}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        with pytest.raises(ConfigError) as from_yaml:
            config.load(str(path))
        path.write_text("", encoding="utf-8")
        with pytest.raises(ConfigError) as from_override:
            config.load(str(path), [f"{old}=1"])
        for caught in (from_yaml, from_override):
            assert str(caught.value) == f"{path}: {old!r} was renamed to {new!r}."
    for old, new in renamed(PrepareConfig):
        with pytest.raises(ConfigError) as from_override:
            config.load_prepare(None, [f"{old}=1"])
        assert str(from_override.value) == f"{old!r} was renamed to {new!r}."


def test_every_entry_of_the_table_of_renamed_keys_applies_somewhere() -> None:
    found = [*renamed(Config), *renamed(PrepareConfig)]
    last = {(old.rpartition(".")[2], new.rpartition(".")[2]) for old, new in found}
    assert last == set(RENAMED)


def test_an_unknown_key_like_no_other_gets_the_list_of_known_ones(small: str) -> None:
    with pytest.raises(
        ConfigError, match=r"known keys here: path, scenes, size, buckets, caption, "
    ):
        config.load(small, ["data.qqqqqq=1"])


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("stage_c.model.semantic_channels=8", "compressor.channels"),
        ("stage_b.model.semantic_channels=8", "compressor.channels"),
        ("stage_c.model.width=1000", "heads"),
        ("stage_b.model.widths=[320, 640]", "equally many levels"),
        ("stage_b.model.widths=[320, 641, 1280, 1280]", "641"),
        ("text.width=32", "text.width"),
        ("stage_b.training.text_conditioning=true", "text.pretrained_b"),
        ("data.size=100", "multiple of 128"),
        ("data.size=0", "data.size"),
        ("stage_a.training.batch_size=-1", "stage_a.training.batch_size"),
        ("stage_a.training.precision=fp8", "fp8"),
        ("stage_a.training.images=many", "many"),
        ("data=5", "data"),
        (
            "stage_a.training.ema_decay=[0.9, 2]",
            "stage_a.training.ema_decay.1: Input should be less than 1",
        ),
        (
            "stage_a.training.ema_decay=2",
            "stage_a.training.ema_decay: Input should be less than 1, found 2",
        ),
        ("name=", "name"),
    ],
)
def test_invalid_values_are_refused_in_one_line(small: str, word: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(small, [word])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["data.path", "=5", ""])
def test_an_override_that_is_no_assignment_is_refused(small: str, word: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        config.load(small, [word])


def test_a_value_has_no_keys_below_it(small: str) -> None:
    with pytest.raises(ConfigError, match="name is a value, not a section"):
        config.load(small, ["name.first=x"])


@pytest.mark.parametrize(
    ("text", "says"), [("- a\n- b\n", "table of keys"), ("a: [1", "not valid YAML")]
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        config.load(str(path))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(ConfigError, match=r"image\.png is not valid YAML: it is not UTF-8"):
        config.load(str(path))


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.load(str(path))


def test_a_missing_file_is_named_with_the_shipped_configs() -> None:
    with pytest.raises(ConfigError, match=r"'no/such\.yaml'"):
        config.load("no/such.yaml")


@cache
def parameters(network: Callable[[config.Section], nn.Module], model: config.Section) -> int:
    """Parameters of a network, built once: several configs have the published sizes."""
    with torch.device("meta"):
        return sum(p.numel() for p in network(model).parameters())


@pytest.mark.parametrize("name", config.shipped())
def test_every_shipped_config_loads_and_builds_its_networks(name: str) -> None:
    loaded = config.load(name, NEEDS_BASE.get(name, []))
    training = loaded.stage_a.training
    with torch.device("meta"):
        Discriminator(training.discriminator_width, training.discriminator_depth)
    for network, model in (
        (StageA, loaded.stage_a.model),
        (Compressor, loaded.compressor),
        (StageB, loaded.stage_b.model),
        (StageC, loaded.stage_c.model),
    ):
        assert parameters(network, model) > 0


def test_default_sizes_are_the_published_ones() -> None:
    assert parameters(StageA, config.StageAModel()) == 18_406_894
    assert parameters(Compressor, config.CompressorModel(affine=False)) == 20_197_968
    assert parameters(StageB, config.StageBModel()) == 1_055_365_280
    assert parameters(StageC, config.StageCModel()) == 993_636_896


def test_the_model_folder_has_the_name_of_the_config_unless_told_otherwise() -> None:
    parsed = config.parse(SMALL, "here")
    assert parsed.folder == Path("models/mine")
    assert config.parse({**SMALL, "output": "/there"}, "here").folder == Path("/there")


def test_errors_name_their_source() -> None:
    with pytest.raises(ConfigError, match=r"^here: "):
        config.parse({"nmae": "x"}, "here")


def test_the_data_section_alone_obeys_the_same_laws() -> None:
    assert config.load_data([]) == config.DataConfig()
    found = config.load_data(["data.path=here", "data.size=256", "data.balance_by=name"])
    assert found == config.DataConfig(path="here", size=256, balance_by="name")
    with pytest.raises(ConfigError, match=r"unknown key 'data\.pth'; did you mean 'path'"):
        config.load_data(["data.pth=here"])
    with pytest.raises(ConfigError, match=r"data\.cache_gib: .* found -1"):
        config.load_data(["data.cache_gib=-1"])
    with pytest.raises(ConfigError, match=r"data\.KEY=VALUE.* found 'seed=1'"):
        config.load_data(["seed=1"])


def test_sections_of_a_config_are_sections() -> None:
    assert isinstance(config.parse(SMALL, "here"), Config)


def test_stage_a_is_never_sharded(small: str) -> None:
    assert refusal(small, "stage_a.training.sharded=true") == (
        "stage_a.training.sharded is true, but Stage A updates its codebook directly, which needs "
        "a full copy in every process; set it to false."
    )


def test_keys_without_effect_are_refused(small: str) -> None:
    pretraining = "stage_b.pretraining.images=8"
    assert (
        "stage_b.pretraining: init_from is 'stickers', but a pretraining starts from scratch"
        in refusal(small, pretraining, "stage_b.pretraining.init_from=stickers")
    )
    assert "stage_c.pretraining.images" in refusal(small, "stage_c.pretraining.images=0")
    assert "compressor_weights would initialise another one; set one of them empty" in refusal(
        small, "stage_b.training.init_from=stickers", "stage_b.training.compressor_weights=file"
    )
    assert "which needs weights; set stage_a.training.vgg16_weights" in refusal(
        small, "stage_a.training.perceptual_loss=vgg16"
    )
    assert "train_text_encoder is false, but there is no trained text encoder" in refusal(
        small, "stage_c.training.train_text_encoder=false"
    )
    assert "stage_b.training.lora.train_text_encoder is true" in refusal(
        small, "stage_b.training.lora={train_text_encoder: true}"
    )


def test_a_frozen_compressor_comes_from_a_model_folder_or_a_pretraining(small: str) -> None:
    frozen = "stage_b.training.freeze_compressor=true"
    assert refusal(small, frozen) == (
        "stage_b.training.freeze_compressor is true, but there is no trained compressor; "
        "set stage_b.training.init_from to a model folder, or add a pretraining."
    )
    started = config.load(small, [frozen, "stage_b.training.init_from=models/other"])
    pretrained = config.load(small, [frozen, "stage_b.pretraining.images=1"])
    assert started.stage_b.training.freeze_compressor
    assert pretrained.stage_b.training.freeze_compressor


@pytest.mark.parametrize(
    ("stage", "learner"), [("stage_b", "compressor"), ("stage_c", "text encoder")]
)
def test_a_pretraining_and_other_weights_exclude_each_other(
    small: str, stage: str, learner: str
) -> None:
    pretraining, start = f"{stage}.pretraining.images=1", f"{stage}.training.init_from=models/other"
    assert refusal(small, pretraining, start) == (
        f"{stage}.training.init_from is 'models/other', but {stage}.pretraining would train "
        f"another {learner}; set one of them to null or empty."
    )
    for alone in (pretraining, start):
        config.load(small, [alone])
    config.load(small, [pretraining, start, f"{stage}.pretraining=null"])


def test_a_published_text_encoder_and_a_pretraining_exclude_each_other(small: str) -> None:
    published, pretraining = "text.pretrained=some/clip", "stage_c.pretraining.images=1"
    assert refusal(small, published, pretraining) == (
        "text.pretrained is 'some/clip', which stays frozen, but stage_c.pretraining would train "
        "a small text encoder; set one of them to null or empty."
    )
    for alone in (published, pretraining):
        config.load(small, [alone])


def refusal(source: str, *words: str) -> str:
    """The error for a config with these overrides, without the name of the source."""
    with pytest.raises(ConfigError) as caught:
        config.load(source, words)
    return str(caught.value).removeprefix(f"{source}: ")


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("data.path=/data/set #2", ("data", "path"), "/data/set #2"),
        ("data.path=2024", ("data", "path"), "2024"),
        ("data.path=my: images", ("data", "path"), "my: images"),
        ("data.background=#ff0000", ("data", "background"), "#ff0000"),
        ("name=on", ("name",), "on"),
        ("data.balance_by=null", ("data", "balance_by"), None),
        ("data.balance_by=yes", ("data", "balance_by"), "yes"),
        ("stage_b.pretraining=null", ("stage_b", "pretraining"), None),
    ],
)
def test_overrides_of_text_keys_are_literal(
    word: str, path: tuple[str, ...], value: object
) -> None:
    found: object = config.load("tiny", [word])
    for part in path:
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("text.heads=3", "text.width is 64, which must be a multiple of text.heads, 3"),
        ("stage_b.model.patch=3", "stage_b.model.patch"),
        ("stage_b.model.patch=4", "need latent sides divisible by 64"),
        ("seed=-1", "seed"),
        ("seed=9223372036854775808", "seed"),
        ("stage_a.training.betas=[2, 3]", "betas"),
        ("stage_a.training.crop_size=4", "crop_size"),
        ("stage_a.training.learning_rate=.inf", "learning_rate"),
        ("stage_b.model.widths=[]", "widths"),
    ],
)
def test_what_would_fail_in_hours_fails_at_once(word: str, words: str) -> None:
    levels = [
        "stage_b.model.widths=[8, 8, 8, 8, 8]",
        "stage_b.model.blocks=[1, 1, 1, 1, 1]",
        "stage_b.model.heads=[0, 0, 0, 0, 0]",
        "stage_b.model.semantics=[false, false, true, true, true]",
    ]
    with pytest.raises(ConfigError) as caught:
        config.load("tiny", [*(levels if "patch=4" in word else []), word])
    assert words in str(caught.value)


def test_an_empty_section_and_a_key_that_hides_another_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("data:\n")
    with pytest.raises(ConfigError, match="data: expected a table of keys, found None"):
        config.load(str(path))
    path.write_text("stage_b: {pretraining: {widht: 3}, training: {text_conditioning: false}}\n")
    with pytest.raises(ConfigError, match=r"unknown key .*widht'; did you mean 'width'"):
        config.load(str(path))
    path.write_text("a: [1\nb: }\n")
    with pytest.raises(ConfigError) as caught:
        config.load(str(path))
    assert "\n" not in str(caught.value)
