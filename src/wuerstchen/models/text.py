"""The text encoder: a CLIP text model and its tokenizer, both of `transformers`.

Small ones are trained from scratch with Stage C; published ones (CLIP-bigG for Stage C, CLIP-H
for Stage B) are loaded and frozen. B captions, L tokens, D text width.
"""

import json
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from wuerstchen.config import TextConfig

START, END = "<|startoftext|>", "<|endoftext|>"


class TextEncoder(nn.Module):
    """Captions to (B, L, D) hidden states of the last layer."""

    def __init__(self, model: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    @property
    def width(self) -> int:
        """D, the width of an encoded token."""
        return int(self.model.config.hidden_size)

    @property
    def length(self) -> int:
        """L, the tokens of an encoded caption with start, end and padding."""
        return int(self.tokenizer.model_max_length)

    def forward(self, captions: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.length,
            truncation=True,
            return_tensors="pt",
        ).to(self.model.device)
        output = self.model(tokens.input_ids, attention_mask=tokens.attention_mask)
        hidden: Tensor = output.last_hidden_state
        return hidden  # (B, L, D)

    def truncated(self, caption: str) -> str:
        """The end of the caption that does not fit into L tokens; empty if all of it fits."""
        tokens = self.tokenizer(caption, return_offsets_mapping=True, verbose=False)
        inner = tokens.offset_mapping[1:-1]  # without start and end
        room = self.length - 2
        return caption[inner[room][0] :] if len(inner) > room else ""


def small_text_encoder(config: TextConfig, captions: Iterable[str]) -> TextEncoder:
    """A new encoder whose vocabulary is learned from `captions`."""
    return new_encoder(config, learn_tokenizer(captions, config.vocab_size, config.max_length))


def unread_text_encoder(like: TextEncoder, width: int) -> TextEncoder:
    """A minimal encoder with the tokens of another, for a Stage B that ignores text.

    Its weights are zeros. Model folders have an encoder for Stage B whether it is read or not.

    width  D
    """
    config = TextConfig(width=width, depth=1, heads=1, max_length=like.length)
    encoder = new_encoder(config, like.tokenizer)
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    return encoder


def new_encoder(config: TextConfig, tokenizer: CLIPTokenizer) -> TextEncoder:
    """A new encoder of this size for the tokens of `tokenizer`."""
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        max_position_embeddings=config.max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return TextEncoder(CLIPTextModel(clip), tokenizer)


def learn_tokenizer(captions: Iterable[str], vocabulary: int, length: int) -> CLIPTokenizer:
    """Byte-pair encoding like CLIP's: lower case, words end in `</w>`, any byte is covered.

    vocabulary  maximum number of tokens, start and end included
    length      tokens per caption
    """
    backend: Tokenizer = CLIPTokenizer().backend_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Every letter needs its final form, also in captions not seen here. As special tokens they have
    # fixed ids; otherwise the trainer assigns different ids in every process.
    finals = [f"{letter}</w>" for letter in letters]
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END, *letters, *finals],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(captions, trainer)
    merges = [(first, second) for first, second in json.loads(backend.to_str())["model"]["merges"]]
    return CLIPTokenizer(
        vocab=backend.get_vocab(with_added_tokens=False),
        merges=merges,  # type: ignore[arg-type]  # it expects pairs
        model_max_length=length,
        pad_token=END,
    )


@torch.no_grad()
def encode_frozen(encoder: TextEncoder, captions: Sequence[str]) -> Tensor:
    """Encode without gradients, as with a published encoder."""
    return encoder(captions)  # type: ignore[no-any-return]
