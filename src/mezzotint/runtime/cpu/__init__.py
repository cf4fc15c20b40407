"""Kernels for processors."""

from mezzotint.formats import use_compiled
from mezzotint.runtime.cpu.floating import FloatKernel
from mezzotint.runtime.cpu.grid_passes import GridPasses
from mezzotint.runtime.cpu.int8_onednn import OneDNNKernel
from mezzotint.runtime.cpu.int8_own import OwnKernel
from mezzotint.runtime.kernels import register_kernel

use_compiled(GridPasses())

FLOAT, ONEDNN = FloatKernel(), OneDNNKernel()
OWN = OwnKernel(other=ONEDNN)

# The most preferred comes last.
for _kernel in (FLOAT, ONEDNN, OWN):
    register_kernel(_kernel)

__all__ = ["FLOAT", "ONEDNN", "OWN", "FloatKernel", "GridPasses", "OneDNNKernel", "OwnKernel"]
