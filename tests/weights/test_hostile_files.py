"""Files that lie about their sizes are refused in one sentence, in bounded memory and time."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wuerstchen import weights
from wuerstchen.errors import ModelFolderError
from wuerstchen.weights import headers, torch_files
from wuerstchen.weights.component import Component
from wuerstchen.weights.headers import mapped, read_header

BILLION, WIDE = 10**9, 2**40
C, B, A, S = (
    f"{folder}/config.json" for folder in ("prior_prior", "decoder", "vqgan", "compressor")
)
TEXT = "text_encoder/config.json"
COMPONENTS: dict[str, Component] = {  # type: ignore[type-arg]  # their types do not matter
    C: weights.stage_c,
    B: weights.stage_b,
    A: weights.stage_a,
    S: weights.compressor,
    TEXT: weights.text_b,
}
NOT_NUMBERS = (-1, 0, float("nan"), float("inf"), "8", True, None, [8], {}, 2**64, 0.5)

UNTRUE = [
    *((C, key, value) for key in ("c", "c_in", "c_cond", "c_r") for value in (BILLION, 2**62)),
    *((C, "depth", value) for value in (BILLION, WIDE, 3)),
    *((C, "nhead", value) for value in (WIDE, 3)),
    *((A, key, WIDE) for key in ("embed_dim", "num_vq_embeddings")),
    *((A, "bottleneck_blocks", value) for value in (BILLION, WIDE)),
    *((B, "blocks", [value, 2]) for value in (BILLION, WIDE)),
    *((B, "c_hidden", value) for value in ([WIDE, 16], [8] * 100_000, [[]])),
    *((B, key, WIDE) for key in ("c_cond", "clip_embd", "c_r", "effnet_embd")),
    *((S, key, WIDE) for key in ("channels", "width", "depth")),
    *((TEXT, key, value) for key in ("hidden_size", "vocab_size") for value in (BILLION, WIDE)),
    *((TEXT, key, BILLION) for key in ("num_hidden_layers", "max_position_embeddings")),
    (TEXT, "intermediate_size", WIDE),
    *((file, key, value) for file, key in (
        (C, "c"), (C, "depth"), (C, "dropout"), (B, "c_cond"), (B, "blocks"), (B, "nhead"),
        (A, "embed_dim"), (A, "scale_factor"), (S, "channels"), (S, "width"), (TEXT, "hidden_size"),
        (TEXT, "layer_norm_eps"),
    ) for value in NOT_NUMBERS if (key, value) not in (
        ("dropout", 0), ("dropout", 0.5), ("scale_factor", 0.5), ("scale_factor", 2**64),
        ("width", 0.5), ("layer_norm_eps", 0.5),
    )),
]  # fmt: skip


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(action: Callable[[], object], where: Path) -> str:
    """The sentence of a refusal, which names a file below `where`."""
    with pytest.raises(ModelFolderError) as caught:
        action()
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and str(where) in text and len(text) < 600
    return text


def test_sizes_in_a_config_are_not_believed(folder: Path) -> None:
    """All in one test: copying the model would take longer than the test."""
    for file, key, value in UNTRUE:
        path = folder / file
        before = path.read_text()
        change(path, **{key: value})
        try:
            refused(lambda: COMPONENTS[file].load(folder), folder)  # noqa: B023
        except BaseException as error:
            error.add_note(f"{file}: {key} = {str(value)[:50]}")
            raise
        path.write_text(before)


def test_whole_numbers_may_have_a_point(folder: Path) -> None:
    change(folder / C, c=16.0, nhead=2.0)
    assert weights.stage_c.load(folder).config.width == 16


def test_keys_that_only_transformers_acts_on_change_nothing(folder: Path) -> None:
    captions = ["a red fox"]
    expected = weights.text_b.load(folder)(captions)
    change(folder / TEXT, num_labels=BILLION, return_dict=False, torchscript=True)
    torch.testing.assert_close(weights.text_b.load(folder)(captions), expected)


def test_a_tokenizer_that_pads_to_a_billion_is_harmless(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    padding = {
        "strategy": {"Fixed": BILLION},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "a",
    }
    before = weights.text_b.load(folder)(["a red fox"])
    change(path, padding=padding)
    torch.testing.assert_close(weights.text_b.load(folder)(["a red fox"]), before)


def safetensors_file(path: Path, header: object, data: bytes = b"\0" * 8) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, object] = {
    "overlap": {"a": entry([2], 0, 8), "b": entry([1], 4, 8)},
    "overflow": {"a": entry([2**40, 2**40], 0, 8)},
    "overflow to zero": {"a": entry([2**32, 2**32], 0, 0)},
    "negative": {"a": entry([-2], 0, 8)},
    "end before start": {"a": entry([2], 8, 0)},
    "beyond the file": {"a": entry([2**30], 0, 2**32)},
    "another dtype": {"a": entry([2], 0, 8, "F64")},
    "unknown dtype": {"a": entry([2], 0, 8, "F7")},
    "not covered": {"a": entry([1], 0, 4)},
    "numbers as text": {"a": {"dtype": "F32", "shape": ["2"], "data_offsets": ["0", "8"]}},
    "deep": b'{"__metadata__":' + b'{"a":' * 100_000,
    "a list": b"[]" * 4,
    "no text": b"\xff" * 16,
    "duplicate": b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
}


@pytest.mark.parametrize("kind", HEADERS)
def test_an_untrue_safetensors_header_is_refused(tmp_path: Path, kind: str) -> None:
    path = safetensors_file(tmp_path / "model.safetensors", HEADERS[kind])
    refused(lambda: read_header(path), path)
    refused(lambda: weights.resolve(tmp_path), path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**30, 0])
def test_an_untrue_length_of_the_header_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    refused(lambda: read_header(path), path)


def test_headers_and_counts_of_tensors_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({f"{number}": torch.zeros(0) for number in range(30)}, path)
    monkeypatch.setattr(headers, "MAX_TENSORS", 20)
    assert "20 tensors, found 30" in refused(lambda: read_header(path), path)
    monkeypatch.setattr(headers, "MAX_HEADER", 100)
    assert "a header of 100 bytes" in refused(lambda: read_header(path), path)


def test_sides_of_an_empty_tensor_may_be_anything(tmp_path: Path) -> None:
    path = safetensors_file(
        tmp_path / "a.safetensors", {"a": entry([2**62, 0], 0, 0), "b": entry([2], 0, 8)}
    )
    assert read_header(path).tensors["a"].count == 0


class Shared:
    """Pickles as 40 levels of dictionaries, each with the next one twice: 2^40 entries."""

    def state(self) -> dict[str, object]:
        values: dict[str, object] = {"weight": torch.zeros(1)}
        for _ in range(40):
            values = {"a": values, "b": values}
        return values


def expanded() -> dict[str, torch.Tensor]:
    return {"projection.weight": torch.zeros(1).expand(2**20, 2**20)}


def nested(depth: int) -> dict[str, object]:
    values: dict[str, object] = {"weight": torch.zeros(1)}
    for _ in range(depth):
        values = {"model": values}
    return values


TORCH = {
    "an expanded tensor": expanded,
    "shared dictionaries": lambda: Shared().state(),
    "deep dictionaries": lambda: nested(400),
    "sparse weights": lambda: {"weight": torch.eye(4).to_sparse()},
}


@pytest.mark.parametrize("kind", TORCH)
def test_a_torch_file_that_would_grow_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.pt"
    torch.save(TORCH[kind](), path)
    refused(lambda: read_header(path), path)


def repacked(path: Path, change_entry: Callable[[str, bytes], bytes], method: int) -> None:
    """Write the archive again with other contents or another compression."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in contents.items():
            archive.writestr(name, change_entry(name, data))


def test_a_compressed_archive_is_refused_whose_bytes_would_be_taken_for_weights(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    repacked(path, lambda _, data: data, zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(lambda: read_header(path), path)


def test_archives_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    torch.save({f"{number}": torch.ones(1) for number in range(30)}, path)
    monkeypatch.setattr(torch_files, "MAX_PICKLE", 100)
    assert "a pickle of at most 100" in refused(lambda: read_header(path), path)
    monkeypatch.setattr(torch_files, "MAX_ENTRIES", 20)
    assert "at most 20 entries" in refused(lambda: read_header(path), path)


def test_a_tensor_larger_than_its_entry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    repacked(path, lambda name, data: data[:8] if "/data/" in name else data, zipfile.ZIP_STORED)
    refused(lambda: mapped(path, ["weight"]), path)


def test_pickles_in_pickles_run_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    path = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(1)}, path)
    inner = pickle.dumps(Evil())
    repacked(path, lambda name, data: inner if name.endswith(".pkl") else data, zipfile.ZIP_STORED)
    refused(lambda: read_header(path), path)
    assert not (tmp_path / "ran").exists()


def test_integers_in_place_of_weights_are_refused(folder: Path) -> None:
    path = folder / "prior_prior" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor.to(torch.int8) for name, tensor in tensors.items()}, path)
    assert "as int8" in refused(lambda: weights.stage_c.load(folder), folder)


@pytest.mark.parametrize(("file", "key"), [(C, "depth"), (TEXT, "num_hidden_layers")])
def test_an_untrue_depth_is_refused_by_all_that_reads_sizes_alone(
    folder: Path, file: str, key: str
) -> None:
    change(folder / file, **{key: BILLION})
    for opens in (weights.resolve, weights.resolve_components, weights.describe):
        assert "1,000,000,000 blocks" in refused(lambda: opens(folder), folder)  # noqa: B023
