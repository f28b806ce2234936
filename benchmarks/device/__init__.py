"""Checks and measurements that need an accelerator; `--tiny` runs each of them on a CPU."""
