"""bfloat16 where the hardware has it."""

from __future__ import annotations

from functools import cache

import torch


def quick_precision(device: str) -> torch.autocast:
    """Return a context in which convolutions and products run in bfloat16 if that is faster.

    Graphics processors have it. A processor without its own instructions only imitates it, ten times slower
    than float32.
    """
    enabled = device != "cpu" or _cpu_has_bfloat16()
    return torch.autocast(device, torch.bfloat16, enabled=enabled)


@cache
def _cpu_has_bfloat16() -> bool:
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
