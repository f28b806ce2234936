"""The helpers of the tests of LoRAs and receipts make files to damage here too."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / room) for room in ("lora", "receipts")]
