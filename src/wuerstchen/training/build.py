"""Builds the trainers: the only opener of files for training.

config ─▶ resolve ─▶ StageParts ─▶ networks of Files ─▶ build_stage ─▶ a Stage, for the loop
"""

from itertools import chain
from pathlib import Path

import torch
from torch import nn

from wuerstchen import weights
from wuerstchen.config import Config, Prediction
from wuerstchen.data import Pairs
from wuerstchen.geometry import SEMANTICS_SCALE
from wuerstchen.inference.model_info import ModelInfo, new_info, read_info
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, small_text_encoder
from wuerstchen.training.frozen import FrozenStages, StageBText
from wuerstchen.training.latent_cache import EncodingKind, TextStates, find_encoding
from wuerstchen.training.origins import Origin, finished, resolve
from wuerstchen.training.perceptual import Vgg16Loss, pyramid_loss, vgg16_features
from wuerstchen.training.pretrain_compressor import CompressorPretrainer
from wuerstchen.training.pretrain_text import TextPretrainer
from wuerstchen.training.prior_preservation import ClassSemantics, generate_class
from wuerstchen.training.stage import Rows, RunName, Stage
from wuerstchen.training.stage_a import StageATrainer
from wuerstchen.training.stage_b import StageBTrainer
from wuerstchen.training.stage_c import StageCTrainer, StoredText


class Files:
    """The networks of trainers: those that exist are opened, the rest have random weights.

    Planning overrides what opens files.
    """

    def __init__(self, config: Config, pairs: Pairs) -> None:
        """pairs: the training images"""
        self.config, self.pairs = config, pairs
        self.parts = resolve(config)

    def is_new(self, origin: Origin) -> bool:
        return origin.kind == "new"

    def stage_a(self, origin: Origin) -> StageA:
        if self.is_new(origin):
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
        if not self.is_new(origin):
            return weights.stage_b.load(origin.path)
        network = StageB(self.config.stage_b.model)
        _fit_to_semantics(network)
        return network

    def stage_c(self, origin: Origin) -> StageC:
        if self.is_new(origin):
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

    def stored(self, kind: EncodingKind, network: nn.Module) -> Rows | None:
        """Encodings of the training images on disk, if there are any by this network."""
        return find_encoding(self.config.data.latent_cache, kind, network, self.pairs)

    def text_states(self, text: TextEncoder) -> StoredText | None:
        """The same of their captions."""
        found = find_encoding(self.config.data.latent_cache, "text", text, self.pairs)
        return None if found is None else TextStates(found, self.pairs)

    def class_semantics(self, stage_c: StageC, text: TextEncoder) -> ClassSemantics | None:
        """What the model knows of a subject's class before training, if that is preserved."""
        preserved, size = self.config.stage_c.training.prior_preservation, self.config.data.size
        if preserved is None:
            return None
        return generate_class(preserved, stage_c, text, size, self.config.seed)

    def info(self, predicts: Prediction) -> ModelInfo:
        """The metadata of the model that Stage C starts from, or of a new one.

        predicts  what Stage B predicts
        """
        base = self.config.stage_c.training.init_from
        return read_info(self.parts.stage_c.path, self.config.name) if base else new_info(predicts)


def build_stage(name: RunName, files: Files) -> Stage:
    """A trainer with its networks."""
    config, parts = files.config, files.parts
    match name:
        case "a":
            network = files.stage_a(parts.stage_a)
            training = config.stage_a.training
            pyramid = training.perceptual_loss == "pyramid"
            perceptual = pyramid_loss if pyramid else Vgg16Loss(files.vgg16(training.vgg16_weights))
            return StageATrainer(config.stage_a, network, perceptual, files.pairs)
        case "b-pretraining":
            stage_a = files.stage_a(finished("stage_a", config))
            compressor = files.compressor(Origin("compressor", "new"))
            return CompressorPretrainer(config, stage_a, compressor)
        case "b":
            stage_a = files.stage_a(finished("stage_a", config))
            compressor = files.compressor(parts.compressor)
            stage_b = files.stage_b(parts.stage_b)
            text = _text_of(stage_b, files)
            stored = files.stored("latents", stage_a)
            return StageBTrainer(config, stage_a, compressor, stage_b, text, stored)
        case "c-pretraining":
            return TextPretrainer(config, _frozen(files), files.text(Origin("text_c", "new")))
        case "c":
            return _stage_c(files)


def _stage_c(files: Files) -> StageCTrainer:
    config, parts = files.config, files.parts
    frozen = _frozen(files)
    text = files.text(parts.text_c).requires_grad_(parts.trains_text)
    stage_c = files.stage_c(parts.stage_c)
    if config.stage_c.training.head == "difference":
        stage_c.hold_divisor()
    info = files.info(frozen.predicts).model_copy(
        update={"name": config.name, "size": config.data.size}
    )
    # Only a published encoder stays as it is, so that its states can be stored.
    stored = files.text_states(text) if parts.text_c.kind == "published" else None
    of_class = files.class_semantics(stage_c, text)
    return StageCTrainer(
        config, frozen, text, stage_c, info, stored_text=stored, class_semantics=of_class
    )


def _frozen(files: Files) -> FrozenStages:
    config = files.config
    compressor = files.compressor(finished("compressor", config))
    stage_b = files.stage_b(finished("stage_b", config))
    stage_a = files.stage_a(finished("stage_a", config))
    text, stored = _text_of(stage_b, files), files.stored("semantics", compressor)
    return FrozenStages(stage_a, stage_b, compressor, text, config.data.cache_gib, stored)


def _text_of(stage_b: StageB, files: Files) -> StageBText:
    origin = files.parts.text_b
    encoder = None if origin is None else files.text(origin)
    return StageBText(encoder, files.config.text.max_length, stage_b.config.text_width)


@torch.no_grad()
def _fit_to_semantics(stage_b: StageB) -> None:
    """Initialise the maps of the semantics for their scale, which is 42 times unit scale."""
    for mapper in stage_b.semantics_mappers:
        if isinstance(mapper, nn.Conv2d):
            mapper.weight.div_(SEMANTICS_SCALE)
