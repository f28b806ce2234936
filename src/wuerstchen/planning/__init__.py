"""What a training will need, said before it starts: nothing is computed, no weight is read.

The networks are built without content, on torch's meta device, and one training step of each stage
is walked through operation by operation.

    trace, kernels, sizes, networks ─▶ outline ─▶ images ─▶ stage_a, stage_b, stage_c ─▶ steps
    steps ─▶ memory ─▶ fitting, and devices ─▶ costs ─▶ assumptions ─▶ plan ─▶ lines
"""

from wuerstchen.planning.assumptions import Assumptions
from wuerstchen.planning.devices import DEVICES, Device, find_device, parse_bytes
from wuerstchen.planning.plan import Plan, StepPlan, plan

__all__ = [
    "DEVICES",
    "Assumptions",
    "Device",
    "Plan",
    "StepPlan",
    "find_device",
    "parse_bytes",
    "plan",
]
