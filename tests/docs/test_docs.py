"""The documents say what is so: their code runs, their links lead somewhere, their lines are right.

A block of shell or Python stands below a mark that says how it is tested:

    <!-- run: yes -->                    run by `make test`
    <!-- run: yes, with a.b=1 c.d=2 -->  the same, each `train` command with these words behind it
    <!-- run: slow -->                   run by `make test-slow`, on its own
    <!-- run: no, REASON -->             not run

The blocks of a document run one after the other in one folder, which holds `images/`. Python
blocks share their names, shell blocks have the commands of the tested installation.
"""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import warm
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
SHELL, PYTHON = ("sh", "bash", "console"), ("python",)

FENCE = re.compile(r"```(\w*)")
MARK = re.compile(r"<!-- run: (?:(yes|slow)(?:, with (.+))?|(no), (.+)) -->")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
TRAINING = re.compile(r"^.*(?:\bwuerstchen|-m wuerstchen) train .*$", re.MULTILINE)

TOOL = runpy.run_path(str(ROOT / "tools" / "docs.py"))


@dataclass(frozen=True)
class Block:
    """A fenced piece of a document."""

    place: str
    """File and line, for messages."""
    language: str
    code: str
    mark: re.Match[str] | None

    @property
    def runs(self) -> str:
        """yes, slow or no."""
        assert self.mark is not None, f"{self.place}: no mark such as <!-- run: yes --> above it"
        return self.mark[1] or self.mark[3]

    @property
    def commands(self) -> str:
        """What a shell is given: no `$ ` of consoles nor their output, training made short."""
        lines = self.code.splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        code = "\n".join(lines).replace("\\\n", " ")
        words = (self.mark and self.mark[2]) or ""
        return TRAINING.sub(lambda line: f"{line[0]} {words}", code)


def read_blocks(path: Path) -> list[Block]:
    found: list[Block] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not (fence := FENCE.fullmatch(line)):
            continue
        if start is None:
            start, language = number, fence[1]
        else:
            place = f"{path.relative_to(ROOT)}:{start + 1}"
            above = lines[start - 1] if start else ""
            code = "\n".join(lines[start + 1 : number])
            found.append(Block(place, language, code, MARK.fullmatch(above)))
            start = None
    assert start is None, f"{path}: the block at line {start} does not end"
    return found


def runnable(path: Path) -> list[Block]:
    return [block for block in read_blocks(path) if block.language in SHELL + PYTHON]


def documents_with(kind: str) -> list[str]:
    """Names of the documents that have blocks of a kind; one without a mark fails elsewhere."""
    marked = {p: [b for b in runnable(p) if b.mark and b.runs == kind] for p in DOCUMENTS}
    return [str(path.relative_to(ROOT)) for path, blocks in marked.items() if blocks]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with eight captioned images, in which the blocks run."""
    images = tmp_path / "images"
    images.mkdir()
    colours = ("red", "green", "blue", "yellow")
    for index in range(8):
        colour, shape = colours[index % 4], ("circle", "square")[index // 4]
        image = Image.new("RGB", (160, 144), "white")
        pen = ImageDraw.Draw(image)
        draw: Callable[..., None] = pen.ellipse if shape == "circle" else pen.rectangle
        draw((30, 20, 130, 120), fill=colour)
        image.save(images / f"{index}.png")
        (images / f"{index}.txt").write_text(f"a {colour} {shape}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(block: Block) -> None:
    places = (str(warm.server().shim()), str(Path(sys.executable).parent), os.environ["PATH"])
    path = os.pathsep.join(places)
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PATH": path}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.commands],
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, (
        f"{block.place}: exit code {done.returncode}\n{done.stderr[-3000:]}"
    )


def run_python(block: Block, names: dict[str, object], workplace: Path) -> dict[str, object]:
    script = workplace / f"{block.place.replace('/', '-').replace(':', '-line-')}.py"
    script.write_text(block.code, encoding="utf-8")
    found = runpy.run_path(str(script), init_globals=names)
    return {name: value for name, value in found.items() if not name.startswith("__")}


def run_blocks(blocks: list[Block], workplace: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks:
        if block.language in SHELL:
            run_shell(block)
        else:
            names = run_python(block, names, workplace)


@pytest.mark.parametrize("document", documents_with("yes"))
def test_the_code_of_a_document_runs(document: str, workplace: Path) -> None:
    run_blocks([block for block in runnable(ROOT / document) if block.runs == "yes"], workplace)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::torch", "ignore::DeprecationWarning")  # what compiling loads
@pytest.mark.parametrize("document", documents_with("slow"))
def test_the_slow_code_of_a_document_runs(document: str, workplace: Path) -> None:
    run_blocks([block for block in runnable(ROOT / document) if block.runs == "slow"], workplace)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_says_whether_it_runs(path: Path) -> None:
    assert [block.place for block in runnable(path) if block.mark is None] == []


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("<!-- run: yes -->", "yes"),
        ("<!-- run: slow, with a.b=1 -->", "slow"),
        ("<!-- run: no, it would buy a computer -->", "no"),
        ("<!-- run: no -->", None),
        ("<!-- run: perhaps -->", None),
        ("", None),
    ],
)
def test_a_block_that_does_not_run_needs_a_reason(text: str, runs: str | None) -> None:
    mark = MARK.fullmatch(text)
    assert (mark and (mark[1] or mark[3])) == runs


def test_words_of_a_mark_reach_training_commands_alone() -> None:
    code = "wuerstchen train tiny \\\n  data.path=x\nwuerstchen generate cat\n"
    block = Block("here:1", "sh", code, MARK.fullmatch("<!-- run: yes, with a.b=1 -->"))
    assert block.commands.split("\n") == [
        "wuerstchen train tiny    data.path=x a.b=1",
        "wuerstchen generate cat",
    ]


def test_a_block_that_fails_fails_its_test(workplace: Path) -> None:
    with pytest.raises(AssertionError, match="here:1: exit code 3"):
        run_blocks([Block("here:1", "sh", "ls images\nexit 3", None)], workplace)
    with pytest.raises(ZeroDivisionError):
        run_blocks([Block("here:1", "python", "1 / 0", None)], workplace)


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    inside = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in inside if not leads_somewhere(path, target)] == []


def leads_somewhere(path: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    there = path.parent / name if name else path
    if not anchor or not there.exists():
        return there.exists()
    text = there.read_text(encoding="utf-8")
    if re.fullmatch(r"L\d+", anchor):
        return int(anchor[1:]) <= text.count("\n") + 1
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_symbols_name_the_line_that_defines_them(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert TOOL["refreshed"](text, path.parent) == text, "run .venv/bin/python tools/docs.py"


def test_every_line_that_is_linked_comes_with_its_symbol() -> None:
    """So that no line number escapes the test above."""
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    lines = re.findall(r"\.py#L\d+", text)
    assert len(lines) == len(TOOL["SYMBOL_LINK"].findall(text)) > 50


def test_a_symbol_that_is_gone_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        "a, B = 1, 2\n\nclass C:\n    x: int = 1\n\n    def f(): ...\n"
    )
    (tmp_path / "docs").mkdir()
    link = "[`{}`](../code.py#L9)"
    for symbol, line in {"a": 1, "B": 1, "C": 3, "C.x": 4, "C.f": 6}.items():
        expected = f"[`{symbol}`](../code.py#L{line})"
        assert TOOL["refreshed"](link.format(symbol), tmp_path / "docs") == expected
    with pytest.raises(LookupError, match=r"code\.py defines no C\.g"):
        TOOL["refreshed"](link.format("C.g"), tmp_path / "docs")


def test_the_reference_of_the_config_is_up_to_date() -> None:
    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert TOOL["config_reference"]() == text, "run .venv/bin/python tools/docs.py"


def test_every_key_of_a_config_is_in_its_reference() -> None:
    """Counted by what a dump of the defaults holds, not by what the tool walks through."""
    from wuerstchen.config import Config, PrepareConfig

    def leaves(values: dict[str, object]) -> set[str]:
        return {
            name
            for key, value in values.items()
            for name in (leaves(value) if isinstance(value, dict) else {key})
        }

    text = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    stage_b = {
        "model": {"text_width": 1280},
        "training": {"text_conditioning": False},
        "pretraining": {"images": 1},
    }
    stage_c = {"pretraining": {"images": 1}}
    config = Config.model_validate(
        {"text": {"width": 1280}, "stage_b": stage_b, "stage_c": stage_c}
    )
    preservation = {"class_prompt": "a photo of a dog"}
    tuned = Config.model_validate(
        {"base": "model", "stage_c": {"training": {"lora": {}, "prior_preservation": preservation}}}
    )
    found = [each.model_dump() for each in (config, tuned, PrepareConfig())]
    sections = {"pretraining", "lora", "prior_preservation"}  # null in one of the two
    assert listed == set().union(*map(leaves, found)) - sections


def test_the_change_log_speaks_of_this_version() -> None:
    from wuerstchen import __version__

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## \[{re.escape(__version__)}\].*?\n(.*?)(?=^## |\Z)", text, re.M | re.S
    )
    assert section is not None and re.search(r"^- \w", section[1], re.MULTILINE)
