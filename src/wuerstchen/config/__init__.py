"""The configuration: every key with its default and meaning, validated on construction.

Values come from three sources, later ones win: the defaults here, a YAML file, and `a.b=c`
arguments of the command line. Unknown keys are errors that suggest the nearest known key.

section ─▶ training, data, text ─▶ stage_a, stage_b, stage_c ─▶ whole ─▶ reading
"""

from wuerstchen.config.data import DataConfig as DataConfig
from wuerstchen.config.prepare import PRESETS as PRESETS
from wuerstchen.config.prepare import FilterConfig as FilterConfig
from wuerstchen.config.prepare import PrepareConfig as PrepareConfig
from wuerstchen.config.reading import dump as dump
from wuerstchen.config.reading import load as load
from wuerstchen.config.reading import load_data as load_data
from wuerstchen.config.reading import load_prepare as load_prepare
from wuerstchen.config.reading import parse as parse
from wuerstchen.config.reading import shipped as shipped
from wuerstchen.config.section import SEED_LIMIT as SEED_LIMIT
from wuerstchen.config.section import Section as Section
from wuerstchen.config.stage_a import StageAConfig as StageAConfig
from wuerstchen.config.stage_a import StageAModel as StageAModel
from wuerstchen.config.stage_a import StageATraining as StageATraining
from wuerstchen.config.stage_b import CompressorModel as CompressorModel
from wuerstchen.config.stage_b import CompressorPretraining as CompressorPretraining
from wuerstchen.config.stage_b import StageBModel as StageBModel
from wuerstchen.config.stage_b import StageBTraining as StageBTraining
from wuerstchen.config.stage_c import PriorPreservationConfig as PriorPreservationConfig
from wuerstchen.config.stage_c import StageCModel as StageCModel
from wuerstchen.config.stage_c import StageCTraining as StageCTraining
from wuerstchen.config.stage_c import TextPretraining as TextPretraining
from wuerstchen.config.text import TextConfig as TextConfig
from wuerstchen.config.training import LoraConfig as LoraConfig
from wuerstchen.config.training import LossWeight as LossWeight
from wuerstchen.config.training import Prediction as Prediction
from wuerstchen.config.training import TrainingConfig as TrainingConfig
from wuerstchen.config.whole import Config as Config
