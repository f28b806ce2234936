"""What others published of their costs, to compare receipts with. Nothing here is estimated.

P   Pernias et al., Würstchen, arXiv 2306.00637v2, Table 2 and appendix E
M   model cards warp-ai/wuerstchen and warp-ai/wuerstchen-prior, and the card of v1
"""

from dataclasses import dataclass
from difflib import get_close_matches

from wuerstchen.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published receipt; None is what was not published."""

    name: str
    title: str
    device: str
    device_hours: float | None
    images: int | None = None
    """Images seen in training."""
    kg: float | None = None
    """CO2 equivalents, as the authors estimated it."""
    counts: str
    """What is in it and what is not."""
    source: str


PUBLISHED = {
    entry.name: entry
    for entry in (
        Published(
            name="wuerstchen-v2",
            title="Würstchen v2, Stage C",
            device="A100 40 GB PCIe",
            device_hours=24_602,
            images=1_420_000_000,
            kg=2_275.68,
            counts="Stage C alone; its four runs add up to 1.35 billion images by steps and "
            "batches. The kilograms are 250 W for these hours at 0.37 kg/kWh.",
            source="P, Table 2; M",
        ),
        Published(
            name="wuerstchen-v2-b",
            title="Würstchen v2, Stage B",
            device="A100",
            device_hours=11_000,
            images=318_000_000,
            counts="Stage B with the compressor; steps and batches give 272 million images. "
            "Stage A's hours are not published.",
            source="P, appendix E.2",
        ),
        Published(
            name="wuerstchen-v1",
            title="Würstchen v1",
            device="A100 80 GB",
            device_hours=9_200,
            kg=1_311,
            counts="As the card has it, at 512 pixels; the authors' blog says 9,000 hours.",
            source="M, card of v1",
        ),
        Published(
            name="stable-cascade",
            title="Stable Cascade",
            device="not published",
            device_hours=None,
            counts="Neither hours nor images nor energy were published.",
            source="repository Stability-AI/StableCascade",
        ),
        Published(
            name="ldm",
            title="Baseline LDM of the paper",
            device="A100",
            device_hours=25_000,
            kg=2_300,
            counts="About these hours: one latent diffusion model of 0.99 billion parameters at "
            "512 pixels, trained by the authors of Würstchen for comparison.",
            source="P, Table 2 and appendix E.4",
        ),
        Published(
            name="sd-1.4",
            title="Stable Diffusion 1.4",
            device="A100",
            device_hours=150_000,
            images=4_800_000_000,
            kg=11_250,
            counts="As its model card has it.",
            source="model card of SD 1.4, by P, Table 2",
        ),
        Published(
            name="sd-2.1",
            title="Stable Diffusion 2.1",
            device="A100",
            device_hours=200_000,
            images=3_900_000_000,
            kg=15_000,
            counts="As its model card has it.",
            source="model card of SD 2.1, by P, Table 2",
        ),
        Published(
            name="sote-diffusion",
            title="SoteDiffusion, a fine-tuning",
            device="A100",
            device_hours=220,
            images=18_000_000,
            counts="Stable Cascade trained on with 6 million images, three times each.",
            source="Civitai, model 353284",
        ),
    )
}


def choose(names: str) -> list[Published]:
    """Those that a list with commas names; all for `all`, none for `none`.

    Raises ConfigError for a name that is not in the table.
    """
    if names in ("all", "none"):
        return list(PUBLISHED.values()) if names == "all" else []
    found: list[Published] = []
    for name in (part.strip() for part in names.split(",")):
        if name not in PUBLISHED:
            near = get_close_matches(name, PUBLISHED, n=1)
            raise ConfigError(
                f"--against: expected all, none or one of {', '.join(PUBLISHED)}, found {name!r}"
                + (f"; did you mean {near[0]}?" if near else ".")
            )
        found.append(PUBLISHED[name])
    return found
