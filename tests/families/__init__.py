"""A tiny checkpoint of every policy family, and what the contract suites cannot ask the family."""

from __future__ import annotations

from tests.families import (
    cogvideox,
    hunyuan_video,
    hunyuan_video_1_5,
    ltx_2,
    ltx_video,
    mochi,
    open_sora,
    wan,
    wan_2_2,
    wan_i2v,
)
from tests.families.tiny_family import TinyFamily

TINY: dict[str, TinyFamily] = {
    "wan": wan.TINY,
    "cogvideox": cogvideox.TINY,
    "ltx_2": ltx_2.TINY,
    "ltx_video": ltx_video.TINY,
    "hunyuan_video": hunyuan_video.TINY,
    "wan_i2v": wan_i2v.TINY,
    "mochi": mochi.TINY,
    "wan_2_2": wan_2_2.TINY,
    "open_sora": open_sora.TINY,
    "hunyuan_video_1_5": hunyuan_video_1_5.TINY,
}
"""By `policy.family`."""
