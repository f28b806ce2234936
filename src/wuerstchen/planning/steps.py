"""The trainings of a road as outlines, in their order.

Each does what the trainer of the same name in `training/` does with a batch, without what needs
content (how many codes are in use, who is dropped).
"""

from wuerstchen.config import Config
from wuerstchen.planning.outline import Outline
from wuerstchen.planning.sizes import sized
from wuerstchen.planning.stage_a import StageAOutline
from wuerstchen.planning.stage_b import CompressorPretrainingOutline, StageBOutline
from wuerstchen.planning.stage_c import StageCOutline, TextPretrainingOutline


def outlines(config: Config) -> list[Outline]:
    """The trainings of a config in their order; without content, so in milliseconds.

    Raises ConfigError and ModelFolderError where sizes are not known.
    """
    config = sized(config)
    made: list[Outline] = [StageAOutline(config)]
    if config.stage_b.pretraining is not None:
        made.append(CompressorPretrainingOutline(config, config.stage_b.pretraining))
    made.append(StageBOutline(config))
    if config.stage_c.pretraining is not None:
        made.append(TextPretrainingOutline(config, config.stage_c.pretraining))
    made.append(StageCOutline(config))
    return made
