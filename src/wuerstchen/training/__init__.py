"""Training: stage (abstract) · stage_a · stage_b · stage_c · loop · run."""
