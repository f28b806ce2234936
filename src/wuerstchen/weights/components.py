"""The six components of a model: four networks of ours and two text encoders of transformers'."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar, cast, final

import torch
from torch import nn
from transformers import CLIPTextConfig

from wuerstchen.config import CompressorModel, Section, StageAModel, StageBModel, StageCModel
from wuerstchen.errors import ModelFolderError
from wuerstchen.models.compressor import MEAN, STD, Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights.component import Component, check_blocks, check_keys, check_stored
from wuerstchen.weights.component_files import ComponentFiles
from wuerstchen.weights.files import replacing, write_json, write_tensors
from wuerstchen.weights.headers import TensorInfo, read_header
from wuerstchen.weights.identify import identify, refuse_foreign
from wuerstchen.weights.infer_config import infer_config
from wuerstchen.weights.layout import CONFIG, PLACES, ComponentName
from wuerstchen.weights.names import NAMES, published_config, published_key, read_config
from wuerstchen.weights.original import source_of
from wuerstchen.weights.text import TextComponent
from wuerstchen.weights.tokenizer import first_line
from wuerstchen.weights.weight_files import check_not_twice

N = TypeVar("N", bound=nn.Module)
S = TypeVar("S", bound=Section)


class NetworkComponent(Component[N, S], Generic[N, S]):
    """A network of ours, which keeps its config section as `network.config`."""

    def __init__(self, name: ComponentName, network: Callable[[S], N], section: type[S]) -> None:
        super().__init__(name)
        self._network = network
        self._section = section
        self._names = NAMES[name]

    def config(self, files: ComponentFiles) -> S:
        values = files.config_values()
        found_class = (values or {}).get("_class_name")
        # diffusers has no class for the compressor: infer its sizes if the config is foreign.
        foreign = self.name == "compressor" and found_class != self._names.class_name
        if values is not None and not foreign:
            return read_config(values, files.config or files.weights, self._names, self._section)
        found = identify(read_header(files.weights)).get(self.name)
        if found is None:
            raise ModelFolderError(
                f"{files.weights}: expected {files.title}, found none of its keys; name another."
            )
        refuse_foreign(found, files.weights)
        return infer_config(files.weights, self.name, self._section, found.tensors)

    def empty(self, files: ComponentFiles) -> N:
        config = self.config(files)
        stored = read_header(files.weights).below(files.prefix)
        check_blocks(files, block_count(config), stored)
        try:
            with torch.device("meta"):
                network = self._network(config)
        except (OverflowError, RuntimeError, TypeError, ValueError) as error:
            raise ModelFolderError(
                f"{files.config or files.weights}: {files.title} of these sizes cannot be built "
                f"({first_line(error)}); copy it again."
            ) from None
        self._check(network, files, stored)
        return network.eval()

    def save(self, folder: Path, network: N, dtype: torch.dtype = torch.float32) -> None:
        place, config = PLACES[self.name], cast("S", network.config)
        state = network.state_dict().items()
        check_not_twice(folder, self.name)
        with replacing(folder / place.folder) as (new,):
            write_json(new / CONFIG, published_config(config, self._names))
            tensors = {published_key(name, self._names): value for name, value in state}
            write_tensors(new / place.weights, tensors, dtype)

    def _check(self, network: N, files: ComponentFiles, stored: Mapping[str, TensorInfo]) -> None:
        state = network.state_dict()
        sources = {
            name: source_of(published_key(name, self._names), files.naming) for name in state
        }
        check_keys(files, dict.fromkeys(source.key for source in sources.values()), stored)
        for name, source in sources.items():
            check_stored(files, source.key, stored[source.key], state[name])
        misfits = [
            (name, source)
            for name, source in sources.items()
            if tuple(state[name].shape) != source.cut_shape(stored[source.key].shape)
        ]
        if misfits:
            name, source = misfits[0]
            more = f" ({len(misfits) - 1} more differ)" if len(misfits) > 1 else ""
            expected = list(state[name].shape)
            if source.third is not None:
                expected[0] *= 3
            raise ModelFolderError(
                f"{files.weights}: {source.key} should have the shape {expected} by "
                f"{files.config_source}, found {list(stored[source.key].shape)}{more}."
            )


def block_count(config: object) -> int:
    """The blocks that a config names; those of the compressor have an upper limit anyway."""
    if isinstance(config, CLIPTextConfig):
        return config.num_hidden_layers
    if isinstance(config, StageBModel):
        return sum(config.blocks)
    return config.depth if isinstance(config, StageAModel | StageCModel) else 0


@final
class CompressorComponent(NetworkComponent[Compressor, CompressorModel]):
    """The compressor, for which diffusers has no class."""

    def empty(self, files: ComponentFiles) -> Compressor:
        """Mean and spread of the images are in no file, so they are real from the start."""
        network = super().empty(files)
        network.mean = torch.tensor(MEAN).view(1, 3, 1, 1)
        network.std = torch.tensor(STD).view(1, 3, 1, 1)
        return network


class AnyComponent(Protocol):
    """A component whose types do not matter."""

    name: ComponentName

    def config(self, files: ComponentFiles) -> object: ...

    def empty(self, files: ComponentFiles) -> nn.Module: ...


stage_a = NetworkComponent("stage_a", StageA, StageAModel)
stage_b = NetworkComponent("stage_b", StageB, StageBModel)
stage_c = NetworkComponent("stage_c", StageC, StageCModel)
compressor = CompressorComponent("compressor", Compressor, CompressorModel)
text_b = TextComponent("text_b")
text_c = TextComponent("text_c")

_ALL: tuple[AnyComponent, ...] = (stage_a, stage_b, stage_c, compressor, text_b, text_c)
COMPONENTS: Mapping[ComponentName, AnyComponent] = {each.name: each for each in _ALL}
