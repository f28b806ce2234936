"""Tokenizers learned from captions, and the text encoder."""

import subprocess
import sys

import pytest
import torch
from small_networks import TEXT, small_text

from wuerstchen.models.text import learn_tokenizer, unread_text_encoder

CAPTIONS = [f"a {what} with {count} hats!!" for what in ("fox", "bird") for count in ("one", "two")]


def test_token_ids_have_no_gaps_and_no_duplicates() -> None:
    tokenizer = learn_tokenizer(CAPTIONS, 600, 16)
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert tokenizer.bos_token_id != tokenizer.eos_token_id


def test_the_same_captions_give_the_same_tokenizer_in_every_process() -> None:
    program = (
        "from wuerstchen.models.text import learn_tokenizer;"
        f"print(learn_tokenizer({CAPTIONS!r}, 600, 16).backend_tokenizer.to_str())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600
    )
    assert other.stdout.strip() == learn_tokenizer(CAPTIONS, 600, 16).backend_tokenizer.to_str()


@pytest.mark.parametrize("caption", ["a fox with one hat", "unseen wörds: x, y!", "🦊", "", "!!"])
def test_every_caption_can_be_decoded(caption: str) -> None:
    tokenizer = learn_tokenizer(CAPTIONS, 600, 64)
    tokens = tokenizer(caption).input_ids
    back = tokenizer.decode(tokens, skip_special_tokens=True)
    assert back.replace(" ", "") == caption.replace(" ", "")
    assert tokens.count(tokenizer.eos_token_id) == 1, "no letter is mistaken for the end"


@torch.no_grad()
def test_words_beyond_the_length_are_truncated_and_do_not_matter() -> None:
    encoder = small_text()
    caption = "a red fox " * 9
    rest = encoder.truncated(caption)
    assert rest and caption.endswith(rest)
    fits = caption.removesuffix(rest)
    assert encoder.truncated(fits) == ""
    found, expected = encoder([caption]), encoder([fits])
    assert found.shape == (1, TEXT.max_length, TEXT.width)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_a_caption_is_encoded_the_same_alone_and_in_a_batch() -> None:
    encoder = small_text()
    batch = encoder(["a red fox", "", "two blue birds"])
    alone = torch.cat([encoder([caption]) for caption in ("a red fox", "", "two blue birds")])
    torch.testing.assert_close(batch, alone)


def test_an_encoder_that_is_not_read_is_small_and_has_the_same_tokens() -> None:
    encoder = small_text()
    unread = unread_text_encoder(encoder, 8)
    assert (unread.width, unread.length) == (8, encoder.length)
    assert unread.tokenizer("a red cat").input_ids == encoder.tokenizer("a red cat").input_ids
    assert unread(["a red cat", ""]).shape == (2, encoder.length, 8)
