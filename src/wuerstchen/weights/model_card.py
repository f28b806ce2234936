"""The table at the top of a model card, README.md: licence, and the prior of a decoder."""

from pathlib import Path

import yaml

from wuerstchen.weights.headers import file_kind, read_header

NOT_SAID = "not said"


def front_matter(readme: Path) -> dict[str, object]:
    """The table of a card; empty where there is none, since nothing depends on a card alone."""
    try:
        return card_table(readme.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def card_table(text: str) -> dict[str, object]:
    """The same of the card's text."""
    start, _, rest = text.partition("---")
    head, closed, _ = rest.partition("\n---")
    if start.strip() or not closed:
        return {}
    try:
        values: object = yaml.safe_load(head)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def licence(path: Path) -> str:
    """What is written about it, beside it or in it; nothing is guessed."""
    card: dict[str, object] = {}
    if path.is_dir():
        card = front_matter(path / "README.md")
        if "license" not in card and (path / "LICENSE").is_file():
            return "see its file LICENSE"
    elif file_kind(path) == "safetensors":
        metadata = read_header(path).metadata
        if "modelspec.license" in metadata:
            return metadata["modelspec.license"]
        card = card_table(metadata.get("README.md", ""))
        if "license" not in card and "LICENSE" in metadata:
            return "see LICENSE in its metadata"
    return str(card.get("license") or NOT_SAID)
