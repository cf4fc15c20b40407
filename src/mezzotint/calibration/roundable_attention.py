"""A look at a denoiser's attention before its operands are rounded."""

from __future__ import annotations

import torch
from torch import nn

from mezzotint.errors import ModelError, UsageError
from mezzotint.models import Call, example_call, skeleton
from mezzotint.plan import SimulatedAttention
from mezzotint.runtime import round_attention


@torch.no_grad()
def check_attention(
    denoiser: nn.Module, attention: SimulatedAttention, call: Call | None = None
) -> None:
    """Refuse a denoiser in whose attention not all operands can be rounded.

    One call of it is followed on the meta device, which computes shapes only. Where a model's code
    looks at values, or no example can be made of its arguments, its first real call tells instead.

    Args:
        denoiser: left as it is.
        attention: that is asked for.
        call: of the denoiser; by default an example.

    Raises:
        UsageError: attention is computed by other functions than `scaled_dot_product_attention`;
            one of them is named.
    """
    model = skeleton(denoiser)
    try:
        call = example_call(model) if call is None else call.to("meta")
    except ModelError:
        return
    round_attention(model, attention)
    try:
        call.copied().run(model)
    except UsageError:
        raise
    except Exception:  # models that do not run on the meta device are refused when they run
        return
