"""Update the generated parts of the documents: line numbers, docs/config.md, the map in README.md.

    .venv/bin/python tools/docs.py            # writes
    .venv/bin/python tools/docs.py --check    # lists what is out of date; exit status 1 if any

A link to a symbol looks like [`StageA.encode`](../src/wuerstchen/models/stage_a.py#L103).
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wuerstchen.config import Config, PrepareConfig, TrainingConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "wuerstchen"

MAP = re.compile(r"(?<=<!-- map -->\n).*?(?=<!-- /map -->)", re.DOTALL)
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
then overrides such as `stage_b.training.batch_size=16` on the command line. A key that is not on
this page is an error. The defaults are those of the paper and of the released weights; the shipped
configs in [`src/wuerstchen/configs`](../src/wuerstchen/configs) are smaller or complete those of
the paper.
"""


def definitions(source: str) -> dict[str, int]:
    """Line numbers of classes, functions and variables by dotted name."""
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
    """`text` with the current line number in every symbol link.

    folder  of the document, to which its links are relative

    Raises LookupError for symbols that their files do not define.
    """
    missing: list[str] = []

    def refresh(link: re.Match[str]) -> str:
        symbol, target, _ = link.groups()
        lines = definitions((folder / target).read_text(encoding="utf-8"))
        if symbol not in lines:
            missing.append(f"{target} defines no {symbol}")
            return link[0]
        return f"[`{symbol}`]({target}#L{lines[symbol]})"

    found = SYMBOL_LINK.sub(refresh, text)
    if missing:
        raise LookupError("; ".join(missing))
    return found


def config_reference() -> str:
    """The content of docs/config.md: a table per section, in the order of the code."""
    parts = [INTRODUCTION, *_section("", Config), *_section("stage_*.training", TrainingConfig)]
    for path, section in _sections(Config, ""):
        parts += _section(path, section)
    parts += _section("wuerstchen prepare", PrepareConfig)
    for path, section in _sections(PrepareConfig, ""):
        parts += _section(f"wuerstchen prepare: {path}", section)
    return "\n".join(parts)


def source_map(source: Path) -> str:
    """A folded block with every module of `source`: its path and the first line of its docstring.

    Raises ValueError for a module without a docstring.
    """
    modules = sorted(source.rglob("*.py"), key=lambda path: (path.parent, path))
    width = max(len(path.name) for path in modules)
    lines: list[str] = []
    for before, path in zip((source, *modules), modules, strict=False):
        if path.parent != before.parent:
            folder = path.parent.relative_to(source.parent).as_posix()
            lines.append(f"\n{folder}/" if lines else f"{folder}/")
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if not docstring:
            raise ValueError(f"{path} has no docstring")
        lines.append(f"  {path.name:{width}}  {docstring.splitlines()[0]}")
    summary = f"<summary>All {len(modules)} modules of <code>src/</code></summary>"
    content = "\n".join(lines)
    return f"<details>\n{summary}\n\n```text\n{content}\n```\n\n</details>\n"


def documents() -> dict[Path, str]:
    """Every document that has generated parts, with its current content."""
    found = {}
    for path in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
        found[path] = refreshed(path.read_text(encoding="utf-8"), path.parent)
    modules = source_map(SOURCE)
    found[ROOT / "README.md"] = MAP.sub(lambda _: modules, found[ROOT / "README.md"])
    found[DOCS / "config.md"] = config_reference()
    return found


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
    """The section that is the value of a key, possibly optional, or None."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _default(field: FieldInfo, without: str) -> str:
    return without if field.is_required() else f"`{json.dumps(field.default)}`"


def _meaning(field: FieldInfo) -> str:
    """The docstring below the key, then its allowed values."""
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
    check = sys.argv[1:] == ["--check"]
    stale = [
        (path, text)
        for path, text in documents().items()
        if path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        if not check:
            path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT), "is out of date" if check else "updated")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
