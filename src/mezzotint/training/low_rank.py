"""LoRA inside the rounding: Ŵ = Q(W + B·A), where the usual one adds its branch to the output."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """W + B·A, of low rank at every position of a kernel.

    EfficientDM (arXiv 2310.03270) and MPQ-DM: no factor, no dropout. For a Linear A is [r, in] and
    B [out, r]; for a convolution A is [r, in, h, w] and B [out, r, h, w], and the two are
    multiplied at every kernel position by themselves.

    Attributes:
        down: A, uniform as Linear layers begin.
        up: B, zero.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        """Begin for a weight [out, in / groups, …]; the rank is at most its smaller side."""
        super().__init__()
        out, columns, *kernel = weight.shape
        rank = min(rank, out, columns)
        down = torch.empty(rank, columns, *kernel, dtype=torch.float32)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(out, rank, *kernel, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with what was learned."""
        return weight.float() + self.change()

    def change(self) -> Tensor:
        """B·A, of the weight's shape."""
        if self.down.ndim == 2:
            return self.up @ self.down
        return torch.einsum("or...,ri...->oi...", self.up, self.down)

    @torch.no_grad()
    def start_from(self, error: Tensor) -> None:
        """Let B·A be the part of `error`, of the weight's shape, that its rank can hold best."""
        by_position = error.float().movedim((0, 1), (-2, -1))
        u, s, v = torch.linalg.svd(by_position, full_matrices=False)
        rank = self.down.shape[0]
        root = s[..., :rank].sqrt()
        self.up.copy_((u[..., :rank] * root.unsqueeze(-2)).movedim((-2, -1), (0, 1)))
        self.down.copy_((root.unsqueeze(-1) * v[..., :rank, :]).movedim((-2, -1), (0, 1)))


class Weight(nn.Module):
    """A layer's weight, held once for teacher and student, with or without LoRA.

    Attributes:
        weight: W, or W + B·A.
        lora: the change; None for none.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, *, trained: bool, lora: LowRank | None = None) -> None:
        """Hold `weight`: as it is, unless it is trained itself."""
        super().__init__()
        if trained:
            # Fused optimizers take parameter, gradient and moments in one layout.
            own = weight.detach().to(
                torch.float32, copy=True, memory_format=torch.contiguous_format
            )
            self.weight = nn.Parameter(own)
        else:
            self.register_buffer("weight", weight.detach(), persistent=False)
        self.lora = lora
        if lora is not None:
            parametrize.register_parametrization(self, "weight", lora, unsafe=True)

    def forward(self) -> Tensor:
        """The weight to be rounded, float32."""
        return self.weight.float()
