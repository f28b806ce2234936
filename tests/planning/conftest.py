"""Puts the root of the project on the import path, where `benchmarks` lies beside the package."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
