"""Abilities of this processor: products that are fast, and products that are wrong."""

from __future__ import annotations

import platform

import torch

#: True where torch offers oneDNN's 8-bit products, for the processors we know them on.
ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and bool(torch._C._has_mkldnn)
    and hasattr(torch.ops.onednn, "qlinear_pointwise")
    and hasattr(torch.ops.onednn, "qconv_pointwise")
)

#: True where 8-bit products are added in 32 bits at once. Elsewhere oneDNN adds them in pairs, in
#: 16 bits with saturation.
VNNI = bool(torch.cpu._is_vnni_supported())

#: True where bfloat16 products have instructions of their own; emulated they are 3–8× slower.
BFLOAT16 = any((torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported()))


def pairs_fit(weight_bits: int, activation_bits: int) -> bool:
    """Return whether the sum of two products, unsigned by signed code, stays within 16 bits."""
    return ((1 << activation_bits) - 1) << weight_bits <= 1 << 15


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a floating product of inputs in `dtype` is fastest here."""
    if dtype == torch.bfloat16 and BFLOAT16:
        return torch.bfloat16
    # Half precision has no fast product on a processor: 5× slower than float32.
    return torch.float32 if dtype.itemsize <= 4 else dtype
