"""What each step of the road is built from: the parts that the steps before it left.

config, model folder, pairs ─▶ build_stage ─▶ a Stage, ready for the loop
"""

from itertools import chain
from pathlib import Path

from wuerstchen import weights
from wuerstchen.config import Config
from wuerstchen.data import Pairs
from wuerstchen.models.text import TextEncoder, small_text_encoder
from wuerstchen.training.frozen import FrozenStages
from wuerstchen.training.latent_cache import TextStates, find_encoding
from wuerstchen.training.pretrain_compressor import CompressorPretrainer
from wuerstchen.training.pretrain_text import TextPretrainer
from wuerstchen.training.stage import RunName, Stage
from wuerstchen.training.stage_a import StageATrainer
from wuerstchen.training.stage_b import StageBTrainer
from wuerstchen.training.stage_c import StageCTrainer
from wuerstchen.weights.hub import find


def run_folder(config: Config, name: RunName) -> Path:
    """Where a step keeps its state and its log."""
    return config.folder / "runs" / name


def build_stage(name: RunName, config: Config, train_pairs: Pairs) -> Stage:
    """A step, with everything that the steps before it left for it."""
    match name:
        case "a":
            return StageATrainer(config.stage_a, train_pairs)
        case "b-pretraining":
            return CompressorPretrainer(config, weights.stage_a.load(config.folder))
        case "b":
            pretrained = None
            if config.stage_b.pretraining is not None:
                pretrained = weights.compressor.load(run_folder(config, "b-pretraining"))
            stage_a = weights.stage_a.load(config.folder)
            latents = find_encoding(config.data.latent_cache, "latents", stage_a, train_pairs)
            return StageBTrainer(config, stage_a, _text_of_stage_b(config), pretrained, latents)
        case "c-pretraining":
            below = _below(config, train_pairs)
            return TextPretrainer(config, below, _new_text(config, train_pairs))
        case "c":
            below = _below(config, train_pairs)
            text = _text_of_stage_c(config, train_pairs)
            return StageCTrainer(config, below, text, _text_states(config, text, train_pairs))


def _new_text(config: Config, train_pairs: Pairs) -> TextEncoder:
    captions = chain.from_iterable(pair.captions for pair in train_pairs)
    return small_text_encoder(config.text, captions)


def _text_of_stage_c(config: Config, train_pairs: Pairs) -> TextEncoder:
    if config.text.pretrained:
        return _open_text(config.text.pretrained).requires_grad_(False)
    if config.stage_c.training.init_from:
        text = weights.text_c.load(find(config.stage_c.training.init_from))
        frozen = (
            config.stage_c.training.lora is not None
            or not config.stage_c.training.train_text_encoder
        )
        return text.requires_grad_(not frozen)
    if config.stage_c.pretraining is not None:
        pretrained = weights.text_c.load(run_folder(config, "c-pretraining"))
        return pretrained.requires_grad_(config.stage_c.training.train_text_encoder)
    return _new_text(config, train_pairs)


def _text_states(config: Config, text: TextEncoder, train_pairs: Pairs) -> TextStates | None:
    """What a published encoder made of the captions ahead, if it did."""
    if not config.text.pretrained:
        return None
    found = find_encoding(config.data.latent_cache, "text", text, train_pairs)
    return None if found is None else TextStates(found, train_pairs)


def _below(config: Config, train_pairs: Pairs) -> FrozenStages:
    folder = config.folder
    compressor = weights.compressor.load(folder)
    return FrozenStages(
        weights.stage_a.load(folder),
        weights.stage_b.load(folder),
        compressor,
        _text_of_stage_b(config),
        config.text.max_length,
        config.data.cache_gib,
        find_encoding(config.data.latent_cache, "semantics", compressor, train_pairs),
    )


def _text_of_stage_b(config: Config) -> TextEncoder | None:
    """The encoder that Stage B reads, published or of its start; None where it reads no text."""
    if not config.stage_b.training.text_conditioning:
        return None
    path = config.text.pretrained_b or config.text.pretrained
    if path:
        return _open_text(path)
    return weights.text_b.load(find(config.stage_b.training.init_from))


def _open_text(folder: str) -> TextEncoder:
    """A published encoder: model and tokenizer in one folder."""
    return weights.load_clip_text(Path(folder), Path(folder))
