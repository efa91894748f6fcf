"""bfloat16 where the hardware has it."""

from __future__ import annotations

import torch

from vidanon.networks.runtime import cpu_has_bfloat16


def quick_precision(device: str) -> torch.autocast:
    """Return a context in which convolutions and products run in bfloat16 if that is faster.

    Graphics processors have it. A processor without its own instructions only imitates it, ten times slower
    than float32.
    """
    enabled = device != "cpu" or cpu_has_bfloat16()
    return torch.autocast(device, torch.bfloat16, enabled=enabled)
