"""Würstchen: text to image in three stages, from training to images (arXiv:2306.00637).

from wuerstchen import Pipeline
Pipeline.from_pretrained()("a red apple", seed=1).images[0].save("apple.png")
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wuerstchen.inference.pipeline import Pipeline

__all__ = ["Pipeline", "__version__"]

__version__ = version("wuerstchen")


def __getattr__(name: str) -> object:
    """Import `Pipeline` on first use: torch takes seconds to import, and `--help` needs none."""
    if name == "Pipeline":
        from wuerstchen.inference.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
