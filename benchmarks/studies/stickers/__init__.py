"""Composed scenes of stickers, on which prompt following can be learned and scored exactly.

sprites ─▶ scenes ─▶ captions, truth ─▶ composer ─▶ writer
"""

from benchmarks.studies.stickers.backgrounds import BACKGROUNDS, background_of
from benchmarks.studies.stickers.captions import Caption
from benchmarks.studies.stickers.composer import Composed, Composer
from benchmarks.studies.stickers.scenes import RELATIONS, Mix, Relation
from benchmarks.studies.stickers.sprites import STYLES, Part, Sprite, Sprites, open_sprites
from benchmarks.studies.stickers.truth import Truth, TruthObject, read_truth
from benchmarks.studies.stickers.writer import write_scenes

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
