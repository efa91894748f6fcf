"""HDR10's static metadata: from FFmpeg's side data to the encoder's parameters."""

from __future__ import annotations

import struct

_PER_CHROMATICITY = 50000
_PER_CANDELA = 10000
_FRACTIONS = 10


def x264_params(display: bytes | None, light: bytes | None) -> list[str]:
    """Write x264 parameters that repeat what the source states of its mastering display and its light.

    Args:
        display: FFmpeg's AVMasteringDisplayMetadata: ten fractions as pairs of int32 (x and y of red,
            green, blue and white, least and greatest luminance in cd/m2), two flags that say whether
            chromaticities and luminances are known. None where the source states none.
        light: FFmpeg's AVContentLightMetadata: two uint32, greatest and greatest average light in cd/m2.

    Returns:
        ``mastering-display=...`` and ``cll=...`` in the units of SMPTE ST 2086 (1/50000 and 1/10000 cd/m2),
        as far as they are known.
    """
    params = []
    if display is not None and len(display) >= 4 * (2 * _FRACTIONS + 2):
        *numbers, primaries, luminance = struct.unpack_from(f"={2 * _FRACTIONS + 2}i", display)
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if primaries and luminance and all(below for _, below in pairs):
            units = [_PER_CHROMATICITY] * 8 + [_PER_CANDELA] * 2
            red_x, red_y, green_x, green_y, blue_x, blue_y, white_x, white_y, least, greatest = (
                round(above * unit / below) for (above, below), unit in zip(pairs, units, strict=True)
            )
            params.append(
                f"mastering-display=G({green_x},{green_y})B({blue_x},{blue_y})R({red_x},{red_y})"
                f"WP({white_x},{white_y})L({greatest},{least})"
            )
    if light is not None and len(light) >= 8:
        greatest_light, average_light = struct.unpack_from("=2I", light)
        params.append(f"cll={greatest_light},{average_light}")
    return params
