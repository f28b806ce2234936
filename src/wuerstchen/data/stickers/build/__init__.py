"""The sticker set, built from public packages: the same files as the published set.

packages ─▶ names, drawings ─▶ held_out ─▶ write
"""

from wuerstchen.data.stickers.build.drawings import Drawings
from wuerstchen.data.stickers.build.names import Emoji
from wuerstchen.data.stickers.build.open import open_packages
from wuerstchen.data.stickers.build.packages import Package
from wuerstchen.data.stickers.build.write import Built, build_set

__all__ = ["Built", "Drawings", "Emoji", "Package", "build_set", "open_packages"]
