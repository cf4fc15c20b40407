"""Kernels for NVIDIA GPUs. Triton is imported when the first layer runs on one."""

from mezzotint.runtime.cuda.kernel import FloatKernel, Int8Kernel

__all__ = ["FloatKernel", "Int8Kernel"]
