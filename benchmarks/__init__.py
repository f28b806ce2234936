"""Measurements of speed and size, compared with other systems; not part of the package.

docs/benchmarks/README.md explains them. Terms of all files here: a `system` is the code that runs
(ours, diffusers, sd21, sdxl), a `part` is one of its networks, a `side` is the height and width of
a square image in pixels, and `rows` is the batch size of one network call (two per image with
guidance: prompt and negative prompt).
"""
