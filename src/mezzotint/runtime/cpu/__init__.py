"""Kernels for processors."""

from mezzotint.formats import use_compiled
from mezzotint.runtime.cpu import processor
from mezzotint.runtime.cpu.floating import FloatKernel
from mezzotint.runtime.cpu.grid_passes import GridPasses
from mezzotint.runtime.cpu.int8_avx2 import AVX2Kernel
from mezzotint.runtime.cpu.int8_onednn import OneDNNKernel
from mezzotint.runtime.kernels import register_kernel

use_compiled(GridPasses())

FLOAT, AVX2, ONEDNN = FloatKernel(), AVX2Kernel(), OneDNNKernel()

# The most preferred comes last. With VNNI, oneDNN multiplies four 8-bit integers at a time.
for _kernel in (
    FLOAT,
    *((AVX2, ONEDNN) if processor.VNNI and processor.ONEDNN else (ONEDNN, AVX2)),
):
    register_kernel(_kernel)

__all__ = ["AVX2", "FLOAT", "ONEDNN", "AVX2Kernel", "FloatKernel", "GridPasses", "OneDNNKernel"]
