"""Launching the product kernel: block sizes, measured once per shape."""

from __future__ import annotations

from typing import Any

import triton

from mezzotint.runtime.cuda.gemm import product_kernel

#: Kernels run in Python, on tensors of the CPU: TRITON_INTERPRET was set when Triton was imported.
INTERPRETED = not isinstance(product_kernel, triton.runtime.JITFunction)

#: BLOCK_N, BLOCK_M, BLOCK_K, warps, stages. Products take eight times BLOCK_K positions per step.
_SIZES = (
    (64, 16, 64, 4, 3),
    (64, 32, 32, 4, 3),
    (64, 64, 32, 4, 3),
    (128, 64, 32, 4, 2),
    (128, 64, 16, 4, 3),
    (128, 128, 32, 8, 2),
    (128, 128, 16, 8, 3),
)
CONFIGS = [
    triton.Config({"BLOCK_N": n, "BLOCK_M": m, "BLOCK_K": k}, num_warps=warps, num_stages=stages)
    for n, m, k, warps, stages in _SIZES
]

#: Blocks for the interpreter: as small as may be, so that tests meet many.
SMALL = {"BLOCK_N": 16, "BLOCK_M": 16, "BLOCK_K": 16}

#: Above, the number of pixels no longer changes which blocks are best.
_MOST = 4096


def bucket(pixels: int) -> int:
    """Shapes of one bucket share what was measured."""
    return min(max(int(triton.next_power_of_2(pixels)), 16), _MOST)


def suitable(configs: list[Any], arguments: dict[str, Any], **constants: Any) -> list[Any]:
    """The block sizes worth measuring for a shape."""
    values = arguments | constants
    # The integer units take 32 products at a time.
    least = 32 if values["INTEGER"] else 16
    slot: int = values["slot_units"] * values["UNIT"]
    most = max(int(triton.next_power_of_2(slot)), least)
    pixels: int = values["bucket"]

    def fits(sizes: dict[str, int]) -> bool:
        enough = sizes["BLOCK_M"] <= pixels <= 16 * sizes["BLOCK_M"] or pixels == _MOST
        return enough and least <= sizes["BLOCK_K"] <= most

    return [each for each in configs if fits(each.kwargs)] or configs[1:2]


_tuned = triton.autotune(
    CONFIGS,
    key=["bucket", "rows", "channels", "KERNEL_H", "KERNEL_W", "BITS", "GROUP", "INTEGER"],
    prune_configs_by={"early_config_prune": suitable},
)(product_kernel)


def launch(arguments: dict[str, Any]) -> None:
    """Run the product kernel over all pixels, rows and groups of channels."""
    groups = arguments.pop("groups")

    def grid(sizes: dict[str, Any]) -> tuple[int, int]:
        blocks_m = triton.cdiv(arguments["pixels"], sizes["BLOCK_M"])
        return blocks_m * triton.cdiv(arguments["rows"], sizes["BLOCK_N"]), groups

    if INTERPRETED:
        product_kernel[grid](**arguments, **SMALL)
    else:
        _tuned[grid](**arguments)
