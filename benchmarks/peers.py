"""The networks of Stable Diffusion 2.1 and SDXL, as diffusers runs them, with random weights.

The configs are `unet/config.json` and `vae/config.json` of stabilityai/stable-diffusion-2-1 and
stabilityai/stable-diffusion-xl-base-1.0 on the Hub, without keys that have the class's default
value. Both systems have the same decoder.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.networks import NetworkCall, Sizes, fill, noise

PEERS = ("sd21", "sdxl")
LATENT_STRIDE = 8
"""Pixels per latent cell along each side, for both."""
TOKENS = 77
POOLED_WIDTH = 1280
"""Width of the pooled text, an additional input of SDXL."""

Config = Mapping[str, object]

SD21_UNET: Config = {
    "sample_size": 96,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "upcast_attention": True,
}
SDXL_UNET: Config = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: Config = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
TINY_UNET: Config = {"block_out_channels": (32, 64, 64), "attention_head_dim": (1, 2, 2)}
TINY_SD21: Config = {
    **SD21_UNET,
    **TINY_UNET,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
TINY_SDXL: Config = {**SDXL_UNET, **TINY_UNET, "transformer_layers_per_block": (1, 1, 1)}
TINY_VAE: Config = {**VAE, "block_out_channels": (32, 32, 32, 32)}


def peer(
    system: str, part: str, sizes: Sizes, *, filled: bool = True, device: str = "cpu"
) -> nn.Module:
    """The `unet` or the `vae` of a peer, on a device, or on the meta device if not filled."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    tiny = sizes.name == "tiny"
    with torch.device("meta"):
        if part == "vae":
            network: nn.Module = AutoencoderKL(**(TINY_VAE if tiny else VAE))
        elif system == "sd21":
            network = UNet2DConditionModel(**(TINY_SD21 if tiny else SD21_UNET))
        else:
            network = UNet2DConditionModel(**(TINY_SDXL if tiny else SDXL_UNET))
    return fill(network, device) if filled else network.eval()


def peer_call(system: str, part: str, network: nn.Module, side: int, rows: int = 1) -> NetworkCall:
    """Inputs of `rows` rows for an image of `side` pixels."""
    like = next(network.parameters())
    latent = noise(like, rows, 4, side // LATENT_STRIDE, side // LATENT_STRIDE, seed=1)
    if part == "vae":
        decode: Callable[..., tuple[Tensor]] = network.decode  # type: ignore[assignment]
        return NetworkCall(None, lambda: decode(latent, return_dict=False)[0])
    config = SD21_UNET if system == "sd21" else SDXL_UNET
    text = noise(like, rows, TOKENS, int(str(config["cross_attention_dim"])), seed=2)
    t = torch.full((rows,), 500, device=like.device)
    added: dict[str, Tensor] | None = None
    if system == "sdxl":
        sizes = torch.tensor([side, side, 0, 0, side, side])  # original, crop, target
        added = {
            "text_embeds": noise(like, rows, POOLED_WIDTH, seed=3),
            "time_ids": sizes.to(like).expand(rows, -1),
        }

    def step() -> Tensor:
        predicted: Tensor = network(latent, t, text, added_cond_kwargs=added, return_dict=False)[0]
        return predicted

    return NetworkCall(None, step)
