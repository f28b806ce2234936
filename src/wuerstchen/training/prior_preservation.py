"""Prior preservation: class semantics generated before training (arXiv:2208.12242, section 3.2).

The paper generates images; here semantics suffice, since Stage C learns from nothing else.
B images, S semantic channels, h x w semantic cells, L tokens, D text width.
"""

from typing import final

import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.config import PriorPreservationConfig
from wuerstchen.geometry import semantics_size
from wuerstchen.inference.model_info import Defaults
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, encode_frozen
from wuerstchen.noise import RandomStreams, streams_at
from wuerstchen.training.stage import AT_ONCE


@final
class ClassSemantics:
    """Semantics of the class, one of which accompanies every image of the subject."""

    def __init__(self, config: PriorPreservationConfig, semantics: Tensor) -> None:
        """semantics: (N, S, h, w), scaled"""
        self.prompt, self.weight = config.class_prompt, config.weight
        self._semantics = semantics

    def chosen(self, streams: RandomStreams, device: torch.device) -> Tensor:
        """(B, S, h, w), one for each stream."""
        rows = (streams.uniform() * len(self._semantics)).long()
        return self._semantics[rows].to(device)


@torch.no_grad()
def generate_class(
    config: PriorPreservationConfig, stage_c: StageC, text: TextEncoder, size: int, seed: int
) -> ClassSemantics:
    """Let a model generate its class for images of size x size pixels, before it is trained."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = accelerator or torch.device("cpu")
    training = stage_c.training
    stage_c, text = stage_c.to(device).eval(), text.to(device)
    states = encode_frozen(text, [config.class_prompt, ""])  # (2, L, D)
    cells = (stage_c.config.semantic_channels, *semantics_size(size, size))
    guidance = diffusion.Guidance(Defaults().prior.guidance_scale)
    found = []
    for start in range(0, config.class_images, AT_ONCE):
        positions = range(start, min(start + AT_ONCE, config.class_images))
        streams = streams_at(seed, positions)
        rows = states.repeat_interleave(len(positions), dim=0)  # the prompt, then the empty one
        both, prompted = stage_c.condition(rows), stage_c.condition(rows[: len(positions)])
        denoise = diffusion.guided(stage_c, both, prompted, guidance)
        noise = streams.normal(cells, device)
        *_, scaled = diffusion.ddpm(denoise, noise, diffusion.published_times(), streams)
        found.append(scaled.cpu())
    stage_c.train(training)
    return ClassSemantics(config, torch.cat(found))
