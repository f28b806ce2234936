"""Builds the trainers: the only opener of files for training.

config ─▶ resolve ─▶ StageParts ─▶ a Supplier's networks ─▶ build_stage ─▶ a Stage, for the loop
"""

from abc import ABC, abstractmethod
from itertools import chain
from pathlib import Path
from typing import final

import torch
from torch import nn

from wuerstchen import weights
from wuerstchen.config import Config, StageATraining
from wuerstchen.data import Pairs
from wuerstchen.geometry import SEMANTICS_SCALE
from wuerstchen.inference.model_info import ModelInfo, read_info
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, small_text_encoder
from wuerstchen.training.frozen import FrozenStages, StageBText
from wuerstchen.training.latent_cache import TextStates, find_encoding
from wuerstchen.training.origins import Origin, StageParts, finished, resolve
from wuerstchen.training.perceptual import Perceptual, Vgg16Loss, pyramid_loss, vgg16_features
from wuerstchen.training.pretrain_compressor import CompressorPretrainer
from wuerstchen.training.pretrain_text import TextPretrainer
from wuerstchen.training.prior_preservation import ClassSemantics, generate_class
from wuerstchen.training.stage import Rows, RunName, Stage
from wuerstchen.training.stage_a import StageATrainer
from wuerstchen.training.stage_b import StageBTrainer
from wuerstchen.training.stage_c import StageCTrainer, StoredText


class Supplier(ABC):
    """Supplies the networks of trainers. Subclasses are final."""

    def __init__(self, config: Config, pairs: Pairs) -> None:
        """pairs: the training images"""
        self.config, self.pairs = config, pairs
        self.parts: StageParts = resolve(config)

    @abstractmethod
    def stage_a(self, origin: Origin) -> StageA: ...

    @abstractmethod
    def compressor(self, origin: Origin) -> Compressor: ...

    @abstractmethod
    def stage_b(self, origin: Origin) -> StageB: ...

    @abstractmethod
    def stage_c(self, origin: Origin) -> StageC: ...

    @abstractmethod
    def text(self, origin: Origin) -> TextEncoder: ...

    @abstractmethod
    def vgg16(self, path: str) -> nn.Sequential:
        """Its features; path: of a safetensors file."""

    @abstractmethod
    def latents(self, stage_a: StageA) -> Rows | None:
        """Those of the training images on disk, if there are any by this network."""

    @abstractmethod
    def semantics(self, compressor: Compressor) -> Rows | None:
        """The same of the semantics."""

    @abstractmethod
    def text_states(self, text: TextEncoder) -> StoredText | None:
        """The same of the text states of the captions."""

    @abstractmethod
    def class_semantics(self, stage_c: StageC, text: TextEncoder) -> ClassSemantics | None:
        """What the model knows of a subject's class before training, if that is preserved."""

    @abstractmethod
    def info(self) -> ModelInfo:
        """The metadata of the model that Stage C starts from."""


def build_stage(name: RunName, supplier: Supplier) -> Stage:
    """A trainer with its networks."""
    config, parts = supplier.config, supplier.parts
    match name:
        case "a":
            network = supplier.stage_a(parts.stage_a)
            perceptual = _perceptual(supplier, config.stage_a.training)
            return StageATrainer(config.stage_a, network, perceptual, supplier.pairs)
        case "b-pretraining":
            assert config.stage_b.pretraining is not None
            stage_a = supplier.stage_a(finished("stage_a", config))
            compressor = supplier.compressor(Origin("compressor", "new"))
            return CompressorPretrainer(config, config.stage_b.pretraining, stage_a, compressor)
        case "b":
            stage_a = supplier.stage_a(finished("stage_a", config))
            compressor = supplier.compressor(parts.compressor)
            stage_b = supplier.stage_b(parts.stage_b)
            text = _text_of(stage_b, supplier)
            stored = supplier.latents(stage_a)
            return StageBTrainer(config, stage_a, compressor, stage_b, text, stored)
        case "c-pretraining":
            assert config.stage_c.pretraining is not None
            frozen, encoder = _frozen(supplier), supplier.text(Origin("text_c", "new"))
            return TextPretrainer(config, config.stage_c.pretraining, frozen, encoder)
        case "c":
            return _stage_c(supplier)


def _stage_c(supplier: Supplier) -> StageCTrainer:
    config, parts = supplier.config, supplier.parts
    frozen = _frozen(supplier)
    text = supplier.text(parts.text_c).requires_grad_(parts.trains_text)
    stage_c = supplier.stage_c(parts.stage_c)
    if config.stage_c.training.head == "difference":
        stage_c.hold_divisor()
    info = supplier.info().model_copy(update={"name": config.name, "size": config.data.size})
    return StageCTrainer(
        config,
        frozen,
        text,
        stage_c,
        info,
        # Only a published encoder stays as it is, so that its states can be stored.
        stored_text=supplier.text_states(text) if parts.text_c.kind == "published" else None,
        class_semantics=supplier.class_semantics(stage_c, text),
    )


def _frozen(supplier: Supplier) -> FrozenStages:
    config = supplier.config
    compressor = supplier.compressor(finished("compressor", config))
    stage_b = supplier.stage_b(finished("stage_b", config))
    return FrozenStages(
        supplier.stage_a(finished("stage_a", config)),
        stage_b,
        compressor,
        _text_of(stage_b, supplier),
        config.data.cache_gib,
        supplier.semantics(compressor),
    )


def _text_of(stage_b: StageB, supplier: Supplier) -> StageBText:
    origin = supplier.parts.text_b
    encoder = None if origin is None else supplier.text(origin)
    return StageBText(encoder, supplier.config.text.max_length, stage_b.config.text_width)


def _perceptual(supplier: Supplier, training: StageATraining) -> Perceptual:
    if training.perceptual_loss == "pyramid":
        return pyramid_loss
    return Vgg16Loss(supplier.vgg16(training.vgg16_weights))


@final
class Files(Supplier):
    """Opens what exists, and makes the rest with random weights."""

    def stage_a(self, origin: Origin) -> StageA:
        if origin.kind == "new":
            return StageA(self.config.stage_a.model)
        return weights.stage_a.load(origin.path)

    def compressor(self, origin: Origin) -> Compressor:
        if origin.kind == "base" or origin.kind == "finished":
            return weights.compressor.load(origin.path)
        # Also where it pretrained, so that Stage B begins with the same random weights.
        network = Compressor(self.config.compressor)
        if origin.kind == "pretrained":
            return weights.compressor.load(origin.path)
        if self.config.stage_b.training.compressor_weights:
            weights.load_backbone(network, Path(self.config.stage_b.training.compressor_weights))
        return network

    def stage_b(self, origin: Origin) -> StageB:
        if origin.kind != "new":
            return weights.stage_b.load(origin.path)
        network = StageB(self.config.stage_b.model)
        _fit_to_semantics(network)
        return network

    def stage_c(self, origin: Origin) -> StageC:
        if origin.kind == "new":
            return StageC(self.config.stage_c.model)
        return weights.stage_c.load(origin.path)

    def text(self, origin: Origin) -> TextEncoder:
        if origin.kind == "new":
            captions = chain.from_iterable(pair.captions for pair in self.pairs)
            return small_text_encoder(self.config.text, captions)
        if origin.kind == "published":
            return weights.load_clip_text(origin.path, origin.path)
        component = weights.text_b if origin.component == "text_b" else weights.text_c
        return component.load(origin.path)

    def vgg16(self, path: str) -> nn.Sequential:
        features = vgg16_features()
        weights.load_features(features, Path(path), "VGG16", "stage_a.training.vgg16_weights")
        return features

    def latents(self, stage_a: StageA) -> Rows | None:
        return find_encoding(self.config.data.latent_cache, "latents", stage_a, self.pairs)

    def semantics(self, compressor: Compressor) -> Rows | None:
        return find_encoding(self.config.data.latent_cache, "semantics", compressor, self.pairs)

    def text_states(self, text: TextEncoder) -> StoredText | None:
        found = find_encoding(self.config.data.latent_cache, "text", text, self.pairs)
        return None if found is None else TextStates(found, self.pairs)

    def class_semantics(self, stage_c: StageC, text: TextEncoder) -> ClassSemantics | None:
        config = self.config
        preserved = config.stage_c.training.prior_preservation
        if preserved is None:
            return None
        return generate_class(preserved, stage_c, text, config.data.size, config.seed)

    def info(self) -> ModelInfo:
        base = self.config.stage_c.training.init_from
        return read_info(self.parts.stage_c.path, self.config.name) if base else ModelInfo()


@torch.no_grad()
def _fit_to_semantics(stage_b: StageB) -> None:
    """Initialise the maps of the semantics for their scale, which is 42 times unit scale."""
    for mapper in stage_b.semantics_mappers:
        if isinstance(mapper, nn.Conv2d):
            mapper.weight.div_(SEMANTICS_SCALE)
