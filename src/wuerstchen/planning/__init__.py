"""What a training will need, before it starts: nothing is computed, no weight is read.

The real trainers are built on torch's meta device, where tensors have no content, and one training
step of each is traced operation by operation.

    kernels, trace ─▶ blank ─▶ dry_run ─▶ memory ─▶ plan ─▶ table
                                 assumptions, estimate ─┘
"""

from wuerstchen.planning.assumptions import Assumptions, parse_bytes
from wuerstchen.planning.plan import Plan, RunPlan, plan

__all__ = ["Assumptions", "Plan", "RunPlan", "parse_bytes", "plan"]
