"""Text from outside is displayed so that what it is can be seen."""

import pytest

from wuerstchen.display import printable, printable_lines


@pytest.mark.parametrize("code", [0x1B, 0xAD, 0x200B, 0x202E, 0x2060, 0x2064, 0xFEFF, 0x3164])
def test_invisible_characters_are_escaped(code: int) -> None:
    for shown in (printable, printable_lines):
        assert shown(f"a{chr(code)}b") == f"a\\u{code:04x}b"


@pytest.mark.parametrize(
    "text",
    [
        "\N{MAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}",
        "\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}",
        "می\N{ZERO WIDTH NON-JOINER}خواهم",
        "Würstchen \N{NO-BREAK SPACE}é",
    ],
)
def test_emoji_and_other_scripts_stay_readable(text: str) -> None:
    assert printable(text) == printable_lines(text) == text
