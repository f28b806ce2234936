"""Every defect of a model folder is explained in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import TEXT, contents, small_text
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPVisionConfig

from wuerstchen import weights
from wuerstchen.errors import ModelFolderError
from wuerstchen.models.text import small_text_encoder
from wuerstchen.weights.layout import PLACES

A_WEIGHTS = "vqgan/diffusion_pytorch_model.safetensors"


def load(folder: Path, component: weights.ComponentName) -> None:
    getattr(weights, component).load(folder)


def changed_component(folder: Path, original: Path) -> weights.ComponentName:
    before, after = contents(original), contents(folder)
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    [changed] = {name.partition("/")[0] for name in names}
    return next(key for key, place in PLACES.items() if changed in (place.folder, place.tokenizer))


@pytest.mark.parametrize(
    ("component", "lost", "stage"),
    [
        ("stage_a", "vqgan/config.json", "a"),
        ("stage_b", "decoder/diffusion_pytorch_model.safetensors", "b"),
        ("compressor", "compressor/model.safetensors", "b"),
        ("stage_c", "prior_prior/config.json", "c"),
        ("text_b", "tokenizer/tokenizer_config.json", "c"),
        ("text_c", "prior_tokenizer/tokenizer.json", "c"),
        ("text_c", "prior_text_encoder/model.safetensors", "c"),
    ],
)
def test_a_missing_component_is_named_with_the_stage_to_train(
    folder: Path, component: weights.ComponentName, lost: str, stage: str
) -> None:
    assert weights.has_component(folder, component)
    (folder / lost).unlink()
    assert not weights.has_component(folder, component)
    with pytest.raises(ModelFolderError, match=f"{lost}.*train CONFIG --stage {stage}"):
        load(folder, component)
    if component != "compressor":
        with pytest.raises(ModelFolderError, match=lost):
            weights.write_index(folder)


def test_a_folder_that_does_not_exist_has_no_component(tmp_path: Path) -> None:
    assert not weights.has_component(tmp_path / "none", "stage_a")
    with pytest.raises(ModelFolderError, match=r"Expected Stage A at .*none"):
        weights.stage_a.load(tmp_path / "none")


def edit(path: Path, key: str, value: object) -> None:
    values = json.loads(path.read_text())
    values[key] = value
    path.write_text(json.dumps(values))


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def cut(path: Path, fraction: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])


def surplus(folder: Path, name: str) -> None:
    change_tensors(
        folder / "text_encoder/model.safetensors", lambda t: t.update({name: torch.zeros(1)})
    )


def as_published(tokenizer: Path) -> None:
    """Store the vocabulary as older published folders do: in two files instead of one."""
    model = json.loads((tokenizer / "tokenizer.json").read_text())["model"]
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
    (tokenizer / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


def lose_of_published(folder: Path, name: str) -> None:
    as_published(folder / "tokenizer")
    (folder / "tokenizer" / name).unlink()


def narrow_text(folder: Path) -> None:
    """The tokenizer of an encoder that reads more tokens."""
    longer = small_text_encoder(TEXT.model_copy(update={"max_length": 30}), ["a red fox"])
    longer.tokenizer.save_pretrained(folder / "tokenizer")


def foreign_words(folder: Path) -> None:
    other = small_text_encoder(TEXT, ["ein kleines krokodil lernt lesen und schreiben"] * 9)
    assert len(other.tokenizer) > len(small_text().tokenizer)
    other.tokenizer.save_pretrained(folder / "tokenizer")


PRIOR = "prior_prior/config.json"
TEXT_CONFIG = "text_encoder/config.json"
TOKENS = "tokenizer/tokenizer_config.json"
VOCABULARY = "tokenizer/tokenizer.json"
DECODER = "decoder/config.json"
DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    (r"safetensors \(", lambda f: cut(f / A_WEIGHTS, 0.5)),
    (r"safetensors \(", lambda f: cut(f / A_WEIGHTS, 0)),
    (r"safetensors \(", lambda f: cut(f / "compressor/model.safetensors", 0.99)),
    ("is a pickle", lambda f: (f / A_WEIGHTS).write_bytes(b"\x80\x04K\x01." * 99)),
    ("cannot be read as JSON", lambda f: (f / PRIOR).write_text('{"c": 16')),
    ("cannot be read as JSON", lambda f: (f / PRIOR).write_bytes(b"\xff\xfe\x00")),
    ("expected a JSON object, found list", lambda f: (f / PRIOR).write_text("[]")),
    (
        "expected the keys of a WuerstchenPrior, missing: c, c_cond",
        lambda f: (f / PRIOR).write_text("{}"),
    ),
    ("unknown: colour", lambda f: edit(f / PRIOR, "colour", 1)),
    ("nhead: Input should be greater than 0, found 0", lambda f: edit(f / PRIOR, "nhead", 0)),
    ("c: Input should be a valid integer", lambda f: edit(f / PRIOR, "c", "wide")),
    ("width 16 must be a multiple of heads 3", lambda f: edit(f / PRIOR, "nhead", 3)),
    (
        "expected a WuerstchenPrior, found a StableCascadeUNet",
        lambda f: edit(f / PRIOR, "_class_name", "StableCascadeUNet"),
    ),
    ("level_config has 'CTAA'", lambda f: edit(f / DECODER, "level_config", ["CT", "CTAA"])),
    ("lists of equal length", lambda f: edit(f / DECODER, "level_config", ["CT"])),
    ("kernel_size is 5, but only 3", lambda f: edit(f / DECODER, "kernel_size", 5)),
    ("levels is 3, but only 2", lambda f: edit(f / "vqgan/config.json", "levels", 3)),
    ("unknown: chanels", lambda f: edit(f / "compressor/config.json", "chanels", 16)),
    (
        r"expected 52 tensors, found 50: 2 missing \(vquantizer.embedding.weight, out_",
        lambda f: change_tensors(
            f / A_WEIGHTS,
            lambda t: (t.pop("vquantizer.embedding.weight"), t.pop("out_block.0.bias")),
        ),
    ),
    (
        r"1 unexpected \(codebook.embedding.weight\)",
        lambda f: change_tensors(
            f / A_WEIGHTS, lambda t: t.update({"codebook.embedding.weight": torch.zeros(32, 4)})
        ),
    ),
    (
        r"4 missing.*, \.\.\.\)",
        lambda f: change_tensors(f / A_WEIGHTS, lambda t: [t.pop(k) for k in list(t)[:4]]),
    ),
    (
        r"vquantizer.embedding.weight should have the shape \[64, 4\].*found \[32, 4\]",
        lambda f: edit(f / "vqgan/config.json", "num_vq_embeddings", 64),
    ),
    (r"\(\d+ more differ\)", lambda f: edit(f / PRIOR, "c", 32)),
    (
        "cannot be read as safetensors",
        lambda f: cut(f / "text_encoder/model.safetensors", 0.7),
    ),
    ("cannot be read as JSON", lambda f: cut(f / "text_encoder/config.json", 0.5)),
    ("cannot be read as JSON", lambda f: cut(f / "tokenizer/tokenizer.json", 0.5)),
    (
        r"1 missing \(embeddings.token_embedding.weight\)",
        lambda f: change_tensors(
            f / "text_encoder/model.safetensors",
            lambda t: t.pop("embeddings.token_embedding.weight"),
        ),
    ),
    (
        "cannot be read as a CLIP text model",
        lambda f: edit(f / "text_encoder/config.json", "hidden_size", 64),
    ),
    (
        r"1 unexpected \(encoder.layers.7.layer_norm1.bias\)",
        lambda f: surplus(f, "encoder.layers.7.layer_norm1.bias"),
    ),
    (r"1 unexpected \(colour\)", lambda f: surplus(f, "colour")),
    (r"1 unexpected \(text_projection.bias\)", lambda f: surplus(f, "text_projection.bias")),
    (
        "hidden_size should be a positive integer",
        lambda f: edit(f / TEXT_CONFIG, "hidden_size", "abc"),
    ),
    ("hidden_size should be .* found True", lambda f: edit(f / TEXT_CONFIG, "hidden_size", True)),
    ("num_attention_heads should be", lambda f: edit(f / TEXT_CONFIG, "num_attention_heads", 0)),
    (
        "hidden_size 32 should be a multiple of num_attention_heads 3",
        lambda f: edit(f / TEXT_CONFIG, "num_attention_heads", 3),
    ),
    ("hidden_act should be .*'nope'", lambda f: edit(f / TEXT_CONFIG, "hidden_act", "nope")),
    ("hidden_act should be .*None", lambda f: edit(f / TEXT_CONFIG, "hidden_act", None)),
    ("layer_norm_eps should be .*None", lambda f: edit(f / TEXT_CONFIG, "layer_norm_eps", None)),
    ("layer_norm_eps should be .*-1", lambda f: edit(f / TEXT_CONFIG, "layer_norm_eps", -1.0)),
    ("vocab_size should be", lambda f: edit(f / TEXT_CONFIG, "vocab_size", None)),
    ("num_hidden_layers should be", lambda f: edit(f / TEXT_CONFIG, "num_hidden_layers", -1)),
    ("num_hidden_layers should be", lambda f: edit(f / TEXT_CONFIG, "num_hidden_layers", None)),
    (
        "num_hidden_layers should be",
        lambda f: edit(f / TEXT_CONFIG, "text_config", {"num_hidden_layers": None}),
    ),
    ("eos_token_id should be", lambda f: edit(f / TEXT_CONFIG, "eos_token_id", None)),
    ("attention_dropout", lambda f: edit(f / TEXT_CONFIG, "attention_dropout", "x")),
    ("config of a CLIP text model", lambda f: edit(f / TEXT_CONFIG, "dtype", "nope")),
    ("CLIP text model", lambda f: edit(f / TEXT_CONFIG, "dtype", [])),
    ("model_max_length should be", lambda f: edit(f / TOKENS, "model_max_length", "x")),
    ("model_max_length should be", lambda f: edit(f / TOKENS, "model_max_length", 0)),
    ("model_max_length should be", lambda f: edit(f / TOKENS, "model_max_length", 1)),
    ("model_max_length should be", lambda f: edit(f / TOKENS, "model_max_length", 8.5)),
    ("not finite", lambda f: edit(f / TOKENS, "model_max_length", float("nan"))),
    ("cannot be read as a CLIP tokenizer", lambda f: edit(f / TOKENS, "eos_token", None)),
    ("cannot be read as a CLIP tokenizer", lambda f: edit(f / TOKENS, "added_tokens_decoder", 3)),
    ("pad_token", lambda f: edit(f / TOKENS, "pad_token", None)),
    ("cannot be read as a CLIP tokenizer", lambda f: (f / VOCABULARY).write_text("{}")),
    ("cannot be read as a CLIP tokenizer", lambda f: edit(f / VOCABULARY, "model", {})),
    (
        "cannot be read as a CLIP tokenizer",
        lambda f: edit(f / VOCABULARY, "model", {"type": "BPE", "vocab": {}, "merges": []}),
    ),
    (r"expected .*tokenizer\.json", lambda f: lose_of_published(f, "vocab.json")),
    (r"expected .*tokenizer\.json", lambda f: lose_of_published(f, "merges.txt")),
    ("makes up to 30 tokens .* reads 12", narrow_text),
    ("use the tokenizer that it was trained with", foreign_words),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGES)
def test_a_damaged_folder_is_explained_in_one_sentence(
    folder: Path, whole: Path, message: str, damage: Callable[[Path], object]
) -> None:
    damage(folder)
    with pytest.raises(ModelFolderError, match=message) as caught:
        load(folder, changed_component(folder, whole))
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    assert str(folder) in sentence, "the sentence names the folder"


def test_pickles_are_not_opened(folder: Path) -> None:
    (folder / "text_encoder/model.safetensors").unlink()
    torch.save(small_text().model.state_dict(), folder / "text_encoder/pytorch_model.bin")
    with pytest.raises(ModelFolderError, match=r"lacks.*model\.safetensors"):
        weights.text_b.load(folder)


@pytest.mark.parametrize("also", ["both", "the pair alone"])
def test_a_vocabulary_in_two_files_encodes_as_in_one(folder: Path, also: str) -> None:
    one = (folder / VOCABULARY).read_bytes()
    as_published(folder / "tokenizer")
    if also == "both":
        (folder / VOCABULARY).write_bytes(one)
    captions = ["a red fox", "Two blue birds!", ""]
    loaded = weights.text_b.load(folder)
    torch.testing.assert_close(loaded(captions), small_text(seed=1)(captions))


def test_a_published_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    encoder = small_text()
    encoder.model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json, or vocab\.json and merges\.txt"):
        weights.load_clip_text(tmp_path, tmp_path)


@pytest.mark.parametrize("kind", ["text alone", "with projection", "whole CLIP"])
def test_other_tensors_in_published_text_files_are_ignored(tmp_path: Path, kind: str) -> None:
    encoder = small_text(seed=1)
    config = encoder.model.config
    if kind == "text alone":
        encoder.model.save_pretrained(tmp_path)
        extra = {"text_model.embeddings.position_ids": torch.arange(TEXT.max_length)[None]}
        change_tensors(tmp_path / "model.safetensors", lambda t: t.update(extra))
    else:
        sight = CLIPVisionConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=32
        )
        whole = (
            CLIPTextModelWithProjection(config)
            if kind == "with projection"
            else CLIPModel(CLIPConfig(text_config=config.to_dict(), vision_config=sight.to_dict()))
        )
        whole.text_model.load_state_dict(encoder.model.state_dict())
        whole.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    loaded = weights.load_clip_text(tmp_path, tmp_path)
    torch.testing.assert_close(loaded(["a red fox"]), encoder(["a red fox"]))


def test_more_layers_than_the_config_states_are_refused(tmp_path: Path) -> None:
    longer = small_text_encoder(TEXT.model_copy(update={"depth": 3}), ["a red fox"])
    weights.text_c.save(tmp_path, longer)
    edit(tmp_path / "prior_text_encoder/config.json", "num_hidden_layers", 1)
    with pytest.raises(ModelFolderError, match=r"32 unexpected .*encoder\.layers\.1\."):
        weights.text_c.load(tmp_path)
