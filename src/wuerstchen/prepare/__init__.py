"""From any source of images to shards with an index, cleaned once for all trainings.

units ─▶ filters ─▶ images ─▶ shards ─▶ finish (copies, splits, index) ─▶ summary ─▶ page
"""
