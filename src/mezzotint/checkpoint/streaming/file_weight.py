"""Weights that stay in their file: read by whoever computes with them, and then forgotten."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from mezzotint._stored_dtypes import FILE_DTYPE
from mezzotint.checkpoint.streaming.stored_tensors import StoredTensor
from mezzotint.runtime import LazyWeight


class FileWeight(LazyWeight):
    """A parameter whose values are in memory only while an operation reads them.

    A copy of the module around it has the values. Sent to another process, it names the same file
    there; its views, which state dictionaries hold as well, send their values.

    Attributes:
        refusal: what is said to whoever writes to it.
        stored: the tensor on disk; None for a view.
    """

    refusal: ClassVar[str] = (
        "the weight stays in its file and is read only; load the pipeline without streaming to "
        "change or move it"
    )
    stored: StoredTensor | None = None

    @override
    def __deepcopy__(self, memo: Any) -> nn.Parameter:
        return nn.Parameter(self.dequantize(), requires_grad=False)

    @override
    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.stored is None:
            return super().__reduce_ex__(protocol)
        return file_weight, (self.stored, self.dtype, self.device)


def file_weight(stored: StoredTensor, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    """A parameter that stands for a tensor on disk; where it is read, it may raise CheckpointError.

    Args:
        stored: floating.
        dtype: that it is computed in.
        device: where it is computed.
    """
    read = partial(_read, stored, dtype, device)
    parameter = nn.Parameter(FileWeight(stored.spec.shape, dtype, device, read), False)
    # Set last: a parameter is a copy of what it is made of.
    setattr(parameter, FILE_DTYPE, stored.spec.dtype)
    parameter.stored = stored  # type: ignore[attr-defined]
    return parameter


def _read(stored: StoredTensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    return stored.read().to(device, dtype)
