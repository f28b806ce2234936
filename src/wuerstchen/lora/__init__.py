"""LoRAs for Stage C, Stage B and the text encoder: read those of any tool, apply, fuse and save.

The layers are peft's; only the key names of each tool's files are ours.
"""

from wuerstchen.lora.apply import Adapters
from wuerstchen.lora.load import parse_lora, read_lora
from wuerstchen.lora.lora import Format, Lora, LoraLayer, Network
from wuerstchen.lora.peft_layers import add_lora, fused_copy, trained_lora
from wuerstchen.lora.save import Style, save_all_styles, save_lora

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
    "save_all_styles",
    "save_lora",
    "trained_lora",
]
