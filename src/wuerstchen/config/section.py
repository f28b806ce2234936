"""The base class of all config sections, and the keys that were renamed in them."""

from pydantic import BaseModel, ConfigDict

SEED_LIMIT = 2**63
"""Seeds are in [0, SEED_LIMIT)."""


class Section(BaseModel):
    """A section of the config: immutable; unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


_PAIRS = """
accumulate:gradient_accumulation adversarial_from:adversarial_start batch:batch_size
caption:class_prompt clip:max_grad_norm commitment:commitment_weight copies:duplicate_distance
critic_depth:discriminator_depth critic_width:discriminator_width crop:crop_size
decay:lr_schedule drawn:class_images ema:ema_decay encoded:latent_cache keep:keep_checkpoints
late_times:high_noise_fraction least_aesthetic:min_aesthetic least_caption:min_caption
least_side:min_side least_similarity:min_similarity length:max_length look_at:validation_images
look_every:validate_every memory:cache_gib most_aspect:max_aspect most_caption:max_caption
most_side:max_side most_unsafe:max_unsafe most_watermark:max_watermark perceptual:perceptual_loss
preserve:prior_preservation prompts:validation_prompts quantise_drop:quantise_dropout
rehearsal:pretraining revive_after:code_reset_after sample_by:balance_by
save_every:checkpoint_every semantics_drop:semantics_dropout shard:shard_size start:init_from
test_share:test_fraction text:text_conditioning text:train_text_encoder text_drop:caption_dropout
train_text:train_text_encoder vocabulary:vocab_size warmup:warmup_steps
weight:loss_weighting without_score:missing_score
"""

RENAMED = [(old, new) for old, _, new in (pair.partition(":") for pair in _PAIRS.split())]
"""(old, new). A pair applies to sections that have the new key and lack the old one."""


def new_name(old: str, known: list[str]) -> str | None:
    """The current name of key `old` in a section with the keys `known`; None if never renamed."""
    return next((new for was, new in RENAMED if was == old and new in known), None)
