"""The map in README.md lists every module of src/, and is up to date."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "docs.py"))


def test_the_map_in_the_readme_is_up_to_date() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = TOOL["MAP"].findall(readme)
    assert found == TOOL["source_map"](TOOL["SOURCE"]), "run .venv/bin/python tools/docs.py"


def test_the_map_has_one_line_per_module_grouped_by_folder(tmp_path: Path) -> None:
    for path, docstring in {
        "__init__.py": "The package.",
        "b.py": "B.\n\nMore of B.",
        "inner/__init__.py": "Inner.",
        "inner/long_name.py": "Long.",
    }.items():
        file = tmp_path / "package" / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'"""{docstring}"""\n', encoding="utf-8")
    lines = TOOL["source_map"](tmp_path / "package").splitlines()
    assert lines[1] == "<summary>All 4 modules of <code>src/</code></summary>"
    assert lines[4:-3] == [
        "package/",
        "  __init__.py   The package.",
        "  b.py          B.",
        "",
        "package/inner/",
        "  __init__.py   Inner.",
        "  long_name.py  Long.",
    ]
    (tmp_path / "package" / "c.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"c\.py has no docstring"):
        TOOL["source_map"](tmp_path / "package")
