"""Keys that had another name before: an old one is refused with a sentence that names the new one."""

RENAMED = {
    "accumulate": "gradient_accumulation",
    "adversarial_from": "adversarial_start",
    "batch": "batch_size",
    "caption": "class_prompt",
    "clip": "max_grad_norm",
    "copies": "duplicate_distance",
    "critic_depth": "discriminator_depth",
    "critic_width": "discriminator_width",
    "decay": "lr_schedule",
    "drawn": "class_images",
    "ema": "ema_decay",
    "encoded": "latent_cache",
    "keep": "keep_checkpoints",
    "late_times": "high_noise_fraction",
    "look_at": "validation_images",
    "look_every": "validate_every",
    "memory": "cache_gib",
    "preserve": "prior_preservation",
    "quantise_drop": "quantise_dropout",
    "rehearsal": "pretraining",
    "revive_after": "code_reset_after",
    "sample_by": "balance_by",
    "save_every": "checkpoint_every",
    "semantics_drop": "semantics_dropout",
    "shard": "shard_size",
    "start": "init_from",
    "test_share": "test_fraction",
    "text_drop": "caption_dropout",
    "warmup": "warmup_steps",
    "weight": "loss_weighting",
    "without_score": "missing_score",
    **{
        f"{old}_{bound}": f"{new}_{bound}"
        for old, new in (("least", "min"), ("most", "max"))
        for bound in (
            *("side", "aspect", "caption"),
            *("aesthetic", "watermark", "unsafe", "similarity"),
        )
    },
}
"""Old key to new key. It counts in sections that have the new key and lack the old one."""
