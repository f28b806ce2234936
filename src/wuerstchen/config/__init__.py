"""The configuration: every key with its default and meaning, validated on construction.

Values come from three sources, later ones win: the defaults here, a YAML file, and `a.b=c`
arguments of the command line. Unknown keys are errors that suggest the nearest known key.

section ─▶ training ─▶ data, stage_a, compressor, stage_b, stage_c, text ─▶ whole ─▶ reading
"""

from wuerstchen.config.compressor import CompressorModel
from wuerstchen.config.data import DataConfig
from wuerstchen.config.lora import LoraConfig, PriorPreservationConfig
from wuerstchen.config.prepare import PRESETS, FilterConfig, PrepareConfig
from wuerstchen.config.reading import dump, load, load_data, load_prepare, parse, shipped
from wuerstchen.config.section import Section
from wuerstchen.config.stage_a import StageAConfig, StageAModel, StageATraining
from wuerstchen.config.stage_b import (
    CompressorPretraining,
    StageBConfig,
    StageBModel,
    StageBTraining,
)
from wuerstchen.config.stage_c import StageCConfig, StageCModel, StageCTraining, TextPretraining
from wuerstchen.config.text import TextConfig
from wuerstchen.config.training import LossWeight, Precision, Prediction, TrainingConfig
from wuerstchen.config.whole import Config

__all__ = [
    "PRESETS",
    "CompressorModel",
    "CompressorPretraining",
    "Config",
    "DataConfig",
    "FilterConfig",
    "LoraConfig",
    "LossWeight",
    "Precision",
    "Prediction",
    "PrepareConfig",
    "PriorPreservationConfig",
    "Section",
    "StageAConfig",
    "StageAModel",
    "StageATraining",
    "StageBConfig",
    "StageBModel",
    "StageBTraining",
    "StageCConfig",
    "StageCModel",
    "StageCTraining",
    "TextConfig",
    "TextPretraining",
    "TrainingConfig",
    "dump",
    "load",
    "load_data",
    "load_prepare",
    "parse",
    "shipped",
]
