"""Text from outside, made safe and short to display.

File names, captions, configs and metadata may contain escape sequences that repaint a terminal,
line breaks that forge a message, or a megabyte of text.
"""

import re

LONGEST = 4000
"""Characters of a message; beyond that its middle is left out."""

_LINE_BREAKS = "\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
_UNSAFE = (
    r"\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f"  # control characters, among them ESC and CSI
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # changes of the writing direction
    r"\ufff9-\ufffb\ud800-\udfff"  # annotations, and surrogates, which UTF-8 cannot encode
    # Invisible, so that two names can look the same. U+200C and U+200D stay: emoji need them.
    r"\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u3164\ufeff\uffa0"
)
_IN_A_LINE = re.compile(f"[{_UNSAFE}{_LINE_BREAKS}]")
_IN_A_TEXT = re.compile(f"[{_UNSAFE}\x0b\x0c\x1c-\x1e\x85\u2028\u2029]|\r(?!\n)")


def printable(text: object, longest: int = LONGEST) -> str:
    r"""One line that is safe to display: other characters become escapes such as `\u001b` and `\n`.

    longest  characters kept of a longer text, from its beginning and its end
    """
    line = str(text)
    left_out = len(line) - longest
    if left_out <= 0:
        return _IN_A_LINE.sub(_escape, line)
    start, end = line[: longest - longest // 3], line[len(line) - longest // 3 :]
    shown = f"{start} … ({left_out:,} characters left out) … {end}"
    return _IN_A_LINE.sub(_escape, shown)


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which are kept and not shortened."""
    return _IN_A_TEXT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    """In the form of JSON, so that JSON which is printed stays valid."""
    return {"\n": r"\n", "\r": r"\r"}.get(match[0]) or f"\\u{ord(match[0]):04x}"
