"""From any source of pictures to shards with an index, cleaned once for all trainings.

units ─▶ filters ─▶ pictures ─▶ shards ─▶ finish (copies, splits, index) ─▶ summary ─▶ page
"""
