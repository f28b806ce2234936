"""Measurements of speed and size, side by side with other systems; no part of the package.

`python -m benchmarks.inference` runs them, docs/benchmarks/README.md explains them. Words that all
files here use: a `system` is whose code runs (ours, diffusers, sd21, sdxl), a `part` is a network
of it, a `side` is the height and width of a square image in pixels, `rows` are the batch rows of
one call of a network (two with guidance: wanted and unwanted).
"""
