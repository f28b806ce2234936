"""Watts and grams: what plans and receipts know of electricity, each number once."""

BOARD_WATTS = {
    "A100": 400.0,  # NVIDIA A100 datasheet, SXM board
    "A100-PCIE": 250.0,  # NVIDIA A100 datasheet, PCIe board of 40 GB
    "A100 80GB PCIe": 300.0,  # NVIDIA A100 datasheet, PCIe board of 80 GB
    "A10": 150.0,  # NVIDIA A10 datasheet
    "H100": 700.0,  # NVIDIA H100 datasheet, SXM board
    "H200": 700.0,  # NVIDIA H200 datasheet, SXM board
    "L4": 72.0,  # NVIDIA L4 datasheet
    "L40": 300.0,  # NVIDIA L40 datasheet
    "L40S": 350.0,  # NVIDIA L40S datasheet
    "T4": 70.0,  # NVIDIA T4 datasheet
    "V100": 300.0,  # NVIDIA V100 datasheet, SXM2 board
    "RTX 3090": 350.0,  # NVIDIA GA102 whitepaper
    "RTX 4090": 450.0,  # NVIDIA Ada whitepaper
}
"""Largest power of a board, by words in the name that its driver gives it."""

WATTS_OF_OTHERS = 300.0
"""Of an accelerator that is not in the table: about the middle of it."""

WATTS_OF_A_CORE = 5.0
"""A server's processor of 64 cores takes 280 W."""

WORLD_GRAMS = 475.0
"""g CO2 per kWh, mean of all electricity: IEA, Global Energy and CO2 Status Report 2019. Where no
country is named, for what was used as for what will be. The authors reckoned with 370."""


def watts_of(name: str) -> float:
    """Board power of an accelerator by its name; the longest word of the table that is in it."""
    found = [word for word in BOARD_WATTS if word.lower() in name.lower()]
    return BOARD_WATTS[max(found, key=len)] if found else WATTS_OF_OTHERS
