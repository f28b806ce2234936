"""Composed scenes of stickers, on which prompt following can be learned and scored exactly.

sprites ─▶ scenes ─▶ captions, truth ─▶ composer ─▶ writer
"""

from wuerstchen.data.stickers.backgrounds import BACKGROUNDS, background_of
from wuerstchen.data.stickers.captions import Caption
from wuerstchen.data.stickers.composer import Composed, Composer
from wuerstchen.data.stickers.scenes import RELATIONS, Mix, Relation
from wuerstchen.data.stickers.sprites import STYLES, Part, Sprite, Sprites, open_sprites
from wuerstchen.data.stickers.truth import Truth, TruthObject, read_truth
from wuerstchen.data.stickers.writer import write_scenes

__all__ = [
    "BACKGROUNDS",
    "RELATIONS",
    "STYLES",
    "Caption",
    "Composed",
    "Composer",
    "Mix",
    "Part",
    "Relation",
    "Sprite",
    "Sprites",
    "Truth",
    "TruthObject",
    "background_of",
    "open_sprites",
    "read_truth",
    "write_scenes",
]
