"""What a model drew for a class before it learned a subject of it (arXiv:2208.12242, section 3.2).

The paper draws images; here semantics are enough, since Stage C learns from nothing else.
B images, S semantic channels, h x w semantic cells.
"""

import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.config import PriorPreservationConfig
from wuerstchen.geometry import semantics_size
from wuerstchen.inference.model_info import Defaults
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder, encode_frozen
from wuerstchen.training.stage import AT_ONCE, Draws


class Preserved:
    """Semantics of the class, one of which goes with every image of the subject."""

    def __init__(self, config: PriorPreservationConfig, semantics: Tensor) -> None:
        """semantics: (N, S, h, w), scaled"""
        self.caption, self.weight = config.class_prompt, config.weight
        self._semantics = semantics

    def chosen(self, draws: Draws) -> Tensor:
        """(B, S, h, w), one for each stream of `draws`."""
        rows = (draws.uniform() * len(self._semantics)).long().cpu()
        return self._semantics[rows].to(draws.device)


@torch.no_grad()
def draw_preserved(
    config: PriorPreservationConfig, stage_c: StageC, text: TextEncoder, size: int, seed: int
) -> Preserved:
    """Let a model draw its class for images of size x size pixels, as it is now."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = accelerator or torch.device("cpu")
    training = stage_c.training
    stage_c, text = stage_c.to(device).eval(), text.to(device)
    states = encode_frozen(text, [config.class_prompt, ""])  # (2, L, D)
    cells = torch.empty(stage_c.config.semantic_channels, *semantics_size(size, size))
    found = []
    for start in range(0, config.class_images, AT_ONCE):
        draws = Draws(seed, range(start, min(start + AT_ONCE, config.class_images)), device)
        noise = draws.normal(cells.expand(min(AT_ONCE, config.class_images - start), -1, -1, -1))
        both = states.repeat_interleave(len(noise), dim=0)  # wanted before unwanted
        denoise = diffusion.guided(
            stage_c,
            stage_c.condition(both),
            stage_c.condition(both[: len(noise)]),
            diffusion.Guidance(Defaults().prior.guidance_scale),
        )
        *_, scaled = diffusion.ddpm(denoise, noise, diffusion.published_times(), draws.normal)
        found.append(scaled.cpu())
    stage_c.train(training)
    return Preserved(config, torch.cat(found))
