"""Training of the three stages: config, networks, loop, checkpoints, model folder."""
