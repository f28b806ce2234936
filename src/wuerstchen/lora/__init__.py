"""LoRAs for Stage C, Stage B and the text encoder: read those of any tool, use, fuse and save them.

The layers are peft's; only the names of layers in the files of each tool are ours.
"""

from wuerstchen.lora.apply import Adapters
from wuerstchen.lora.load import read_lora
from wuerstchen.lora.lora import Format, Lora, LoraLayer, Network
from wuerstchen.lora.save import Style, save_everywhere, save_lora
from wuerstchen.lora.trainable import add_lora, fused_copy, trained_lora
from wuerstchen.lora.words import parse_lora

__all__ = [
    "Adapters",
    "Format",
    "Lora",
    "LoraLayer",
    "Network",
    "Style",
    "add_lora",
    "fused_copy",
    "parse_lora",
    "read_lora",
    "save_everywhere",
    "save_lora",
    "trained_lora",
]
