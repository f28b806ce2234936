"""Bring up to date what the documents say of the code: line numbers in links, and docs/config.md.

    .venv/bin/python tools/docs.py

A link to a symbol looks like [`StageA.encode`](../src/wuerstchen/models/stage_a.py#L103).
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wuerstchen.config import Config, PrepareConfig, TrainingConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

SYMBOL_LINK = re.compile(r"\[`([A-Za-z_][\w.]*)`\]\((\.\./[\w./]+\.py)#L(\d+)\)")

LIMITS = {
    "gt": "above",
    "ge": "at least",
    "lt": "below",
    "le": "at most",
    "multiple_of": "multiple of",
}

INTRODUCTION = """# Every key of a config

Written by `tools/docs.py` from [`config/`](../src/wuerstchen/config); do not edit it by hand.

A config is a YAML file with these sections. Later values win: the defaults of this page, the file,
then overrides such as `stage_b.training.batch_size=16` on the command line. A key that is not on this page
is an error. The defaults are those of the paper and of the released weights; the shipped configs in
[`src/wuerstchen/configs`](../src/wuerstchen/configs) are smaller or complete those of the paper.
"""


def definitions(source: str) -> dict[str, int]:
    """Dotted names of classes, functions and variables to the lines that define them."""
    found: dict[str, int] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            for name in _names(node):
                found.setdefault(prefix + name, node.lineno)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(source).body, "")
    return found


def refreshed(text: str, folder: Path) -> str:
    """`text` with the line of every symbol link as the code has it now.

    folder  where the document is, from which its links start

    Raises LookupError for a symbol that its file does not define.
    """

    def refresh(link: re.Match[str]) -> str:
        symbol, target, _ = link.groups()
        lines = definitions((folder / target).read_text(encoding="utf-8"))
        if symbol not in lines:
            raise LookupError(f"{target} defines no {symbol}")
        return f"[`{symbol}`]({target}#L{lines[symbol]})"

    return SYMBOL_LINK.sub(refresh, text)


def config_reference() -> str:
    """docs/config.md: a table for each section, in the order of the code."""
    parts = [INTRODUCTION, *_section("", Config), *_section("stage_*.training", TrainingConfig)]
    for path, section in _sections(Config, ""):
        parts += _section(path, section)
    parts += _section("wuerstchen prepare", PrepareConfig)
    for path, section in _sections(PrepareConfig, ""):
        parts += _section(f"wuerstchen prepare: {path}", section)
    return "\n".join(parts)


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _sections(section: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in section.model_fields.items():
        inner = _inner(field)
        if inner is not None:
            yield path + name, inner
            yield from _sections(inner, f"{path}{name}.")


def _section(path: str, section: type[BaseModel]) -> Iterator[str]:
    own = [(name, section.model_fields[name]) for name in section.__annotations__]
    values = [(name, field) for name, field in own if _inner(field) is None]
    if not values:
        return
    yield f"\n## {f'`{path}`' if path else 'Top level'}\n"
    if section.__doc__:
        yield f"{_line(section.__doc__)}\n"
    if issubclass(section, TrainingConfig) and section is not TrainingConfig:
        yield "Besides the keys that all stages share (`stage_*.training` above):\n"
    yield "| key | default | meaning |\n|---|---|---|"
    for name, field in values:
        default = _default(field, "by stage" if section is TrainingConfig else "has to be given")
        yield f"| `{name}` | {default} | {_meaning(field)} |"


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a key holds (perhaps beside null), if it holds one."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _default(field: FieldInfo, without: str) -> str:
    return without if field.is_required() else f"`{json.dumps(field.default)}`"


def _meaning(field: FieldInfo) -> str:
    """The docstring under the key, then the values that it takes."""
    words = [_line(field.description)] if field.description else []
    if get_origin(field.annotation) is Literal:
        words.append(f"One of {', '.join(f'`{value}`' for value in get_args(field.annotation))}.")
    bounds = [
        f"{word} {getattr(limit, name)}"
        for limit in field.metadata
        for name, word in LIMITS.items()
        if hasattr(limit, name)
    ]
    if bounds:
        words.append(f"{', '.join(bounds).capitalize()}.")
    return " ".join(words).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    for path in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        path.write_text(refreshed(text, path.parent), encoding="utf-8")
    (DOCS / "config.md").write_text(config_reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
