"""English grammar for captions: articles, plurals, numerals and letter case."""

import re

from wuerstchen.data.stickers.random_choices import RandomChoices

NUMERALS = {1: "one", 2: "two", 3: "three", 4: "four"}

AFTER_NOUN = re.compile(r"\b(?:with|of|in|and|on|for|from|at|the|no|not|over|without)\b|[:!,&()]")
"""What ends the main noun of a name such as `face with tears of joy`."""


def with_article(noun: str) -> str:
    """`a cat`, `an apple`, `scissors`."""
    if is_plural(noun):
        return noun
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


def is_plural(noun: str) -> bool:
    """Whether the main noun looks plural: `busts in silhouette`, but not `bus` or `glass`."""
    main = AFTER_NOUN.split(noun)[0].strip()
    return re.search(r"[^sui]s$", main) is not None


def plural(noun: str) -> str | None:
    """`cats`, `boxes`, `cherries`; None if the name has no simple plural."""
    if AFTER_NOUN.search(noun) or not noun[-1:].isalpha():
        return None
    if is_plural(noun):
        return noun
    if re.search(r"(?:s|x|z|ch|sh)$", noun):
        return f"{noun}es"
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def random_case(sentence: str, rng: RandomChoices) -> str:
    """Mostly unchanged; sometimes capitalised, all lower case or all upper case."""
    value = rng.uniform()
    if value < 0.6:
        return sentence
    if value < 0.8:
        return sentence[:1].upper() + sentence[1:]
    return sentence.lower() if value < 0.93 else sentence.upper()
