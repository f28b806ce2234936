"""Empty networks, mapped weights, and both together."""

from pathlib import Path

import pytest
import torch
from published_files import C, authors_state
from small_networks import noise, randomised
from torch import Tensor

from wuerstchen import weights
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights.components import COMPONENTS

every_component = pytest.mark.parametrize("name", COMPONENTS)


def pages(path: Path) -> list[range]:
    """The addresses at which the kernel has mapped the file into this process."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            start, _, end = line.split(" ")[0].partition("-")
            found.append(range(int(start, 16), int(end, 16)))
    return found


def is_mapped(tensor: Tensor, path: Path) -> bool:
    return any(tensor.data_ptr() in addresses for addresses in pages(path))


@every_component
def test_mapped_weights_equal_loaded_ones_but_stay_in_the_file(
    whole: Path, name: weights.ComponentName
) -> None:
    component = getattr(weights, name)
    files = weights.resolve_component(whole if name != "text_b" else whole / "text_encoder", name)
    network, reference = component.load(files, mmap=True), component.load(whole)
    assert not network.training
    assert list(network.state_dict()) == list(reference.state_dict())
    torch.testing.assert_close(network.state_dict(), reference.state_dict(), rtol=0, atol=0)
    for kept, same in zip(network.buffers(), reference.buffers(), strict=True):
        assert torch.equal(kept, same) and kept.dtype == same.dtype
    assert all(is_mapped(t, files.weights) for t in network.parameters())
    assert not any(is_mapped(t, files.weights) for t in reference.parameters())


@every_component
def test_an_empty_network_has_no_weights_and_can_be_filled_repeatedly(
    whole: Path, name: weights.ComponentName
) -> None:
    component = getattr(weights, name)
    files = weights.resolve_component(whole, name)
    network = component.empty(files)
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    expected = component.load(files, mmap=True).state_dict()
    for _ in range(2):
        network.load_state_dict(weights.tensors(files), assign=True)
        assert not any(t.is_meta for t in (*network.parameters(), *network.buffers()))
        torch.testing.assert_close(dict(network.state_dict()), dict(expected), rtol=0, atol=0)
        network.load_state_dict(
            {key: tensor.to("meta") for key, tensor in network.state_dict().items()}, assign=True
        )


def test_other_dtypes_are_converted_and_integers_stay(whole: Path) -> None:
    files = weights.resolve_component(whole, "stage_a")
    assert weights.stored_dtype(files) == torch.float32
    network = weights.stage_a.load(files, torch.bfloat16, mmap=True)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    state = weights.stage_a.load(whole).state_dict()
    for key, tensor in network.state_dict().items():
        expected = state[key].to(torch.bfloat16) if state[key].is_floating_point() else state[key]
        assert torch.equal(tensor, expected)


def test_half_precision_files_are_mapped_as_half_precision(tmp_path: Path) -> None:
    weights.stage_c.save(tmp_path, randomised(StageC(C)), torch.bfloat16)
    files = weights.resolve_component(tmp_path, "stage_c")
    assert weights.stored_dtype(files) == torch.bfloat16
    network = weights.stage_c.load(files, torch.bfloat16, mmap=True)
    assert all(is_mapped(tensor, files.weights) for tensor in network.parameters())


def test_original_files_are_mapped_too(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    torch.save({"ema_state_dict": authors_state(randomised(StageC(C)))}, path)
    network = weights.stage_c.load(weights.resolve_component(path, "stage_c"), mmap=True)
    assert all(is_mapped(tensor, path) for tensor in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mapped_compressor_encodes_images_as_a_loaded_one(
    whole: Path, dtype: torch.dtype
) -> None:
    mapped = weights.compressor.load(
        weights.resolve_component(whole, "compressor"), dtype, mmap=True
    )
    image = noise(1, 3, 64, 64).abs().to(dtype)
    reference = weights.compressor.load(whole).to(dtype)
    with torch.no_grad():
        assert torch.equal(mapped(image), reference(image))
