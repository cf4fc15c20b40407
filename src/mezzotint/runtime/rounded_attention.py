"""Attention whose operands are rounded, simulated in floating point.

A `TorchFunctionMode` takes the calls of `scaled_dot_product_attention` that a denoiser makes, in
whatever class or processor they stand, for as long as one call of the denoiser lasts. Attention
that is written out, by softmax and a product, is refused: its operands would stay as they are.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary
from typing_extensions import override

from mezzotint.errors import UsageError
from mezzotint.formats import ActivationFormat
from mezzotint.plan import SimulatedAttention
from mezzotint.runtime.attention_backends import other_attention

_REMEDY = (
    "choose attention processors that call it, such as AttnProcessor2_0, or leave "
    "simulated_attention out"
)

_FUSED = re.compile(r"::\w*(attention|attn)", re.IGNORECASE)
"""Names of other libraries' operators, such as `xformers::efficient_attention_forward_cutlass`."""

_SOFTMAX = frozenset({functional.softmax, torch.softmax, Tensor.softmax})

_PRODUCTS = frozenset(
    {
        *(torch.bmm, torch.matmul, torch.baddbmm, torch.einsum, torch.mm),
        *(Tensor.bmm, Tensor.matmul, Tensor.baddbmm, Tensor.mm),
        *(Tensor.__matmul__, Tensor.__rmatmul__),
    }
)


def round_attention(denoiser: nn.Module, attention: SimulatedAttention | None) -> None:
    """Round the operands of attention in every call of a denoiser from now on; None undoes it.

    It stands in the denoiser's `forward`, as an attribute of the instance, which copies and pickles
    carry along.
    """
    found = _rounding(denoiser)
    if found is not None:
        found.attention = attention
        if attention is None and vars(denoiser)["forward"] is found:
            _give_back(denoiser, found)
    elif attention is not None:
        vars(denoiser)["forward"] = _RoundingForward(denoiser.forward, attention)


def rounded_attention(denoiser: nn.Module) -> SimulatedAttention | None:
    """The rounding of a denoiser's attention; None where there is none."""
    found = _rounding(denoiser)
    return None if found is None else found.attention


def _rounding(denoiser: nn.Module) -> _RoundingForward | None:
    """Our `forward`, also inside of one that others have put around it, as offloading does."""
    forward = vars(denoiser).get("forward")
    while forward is not None and not isinstance(forward, _RoundingForward):
        forward = getattr(forward, "__wrapped__", None)
    return forward


def _give_back(denoiser: nn.Module, forward: _RoundingForward) -> None:
    inner = forward.__wrapped__
    if getattr(inner, "__func__", None) is type(denoiser).forward:
        del vars(denoiser)["forward"]
    else:
        vars(denoiser)["forward"] = inner


class _RoundingForward:
    """A denoiser's `forward` in which the operands of attention are rounded.

    Attributes:
        attention: to how many bits; None for none.
    """

    __wrapped__: Callable[..., Any]

    def __init__(self, forward: Callable[..., Any], attention: SimulatedAttention) -> None:
        functools.update_wrapper(self, forward)
        self.attention: SimulatedAttention | None = attention

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the denoiser.

        Raises:
            UsageError: it computes attention by other functions than can be taken.
        """
        if self.attention is None:
            return self.__wrapped__(*args, **kwargs)
        denoiser = getattr(self.__wrapped__, "__self__", None)
        if isinstance(denoiser, nn.Module) and (other := other_attention(denoiser)) is not None:
            raise UsageError(
                f"attention of {other} and not by scaled_dot_product_attention, so nothing that it "
                f"multiplies can be rounded; {_REMEDY}"
            )
        with _Rounding(self.attention) as rounding:
            result = self.__wrapped__(*args, **kwargs)
        if not rounding.calls:
            raise UsageError(
                f"{type(denoiser).__name__} calls no scaled_dot_product_attention, so nothing that "
                f"its attention multiplies can be rounded; {_REMEDY}"
            )
        return result


class _Rounding(TorchFunctionMode):
    """Rounds the operands of attention while it is active.

    Attributes:
        attention: to how many bits.
        calls: number of attention's calls so far.
    """

    def __init__(self, attention: SimulatedAttention) -> None:
        super().__init__()
        self.attention = attention
        self.calls = 0
        self._probabilities: MutableMapping[Tensor, None] = WeakTensorKeyDictionary()

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            self.calls += 1
            return attention_of_rounded(self.attention, *args, **kwargs)
        operator = getattr(func, "_qualified_op_name", None) or getattr(func, "_name", "")
        if _FUSED.search(str(operator)):
            raise UsageError(
                f"attention is computed by {operator} and not by scaled_dot_product_attention, so "
                f"what it multiplies cannot be rounded; {_REMEDY}"
            )
        written_out = func in _PRODUCTS and any(map(self._is_probabilities, args))
        if written_out or func is functional.multi_head_attention_forward:
            raise UsageError(
                f"attention is computed by torch's {func.__name__} and not by "
                f"scaled_dot_product_attention, so not all that it multiplies can be rounded; "
                f"{_REMEDY}"
            )
        result = func(*args, **kwargs)
        followed = func in _SOFTMAX or (bool(args) and self._is_probabilities(args[0]))
        if followed and isinstance(result, Tensor):
            self._probabilities[result] = None
        return result

    def _is_probabilities(self, value: Any) -> bool:
        """True for what softmax has put out, also in another dtype or shape."""
        return isinstance(value, Tensor) and value in self._probabilities


def attention_of_rounded(  # noqa: PLR0913  (torch's own signature)
    attention: SimulatedAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` of operands that are rounded.

    Args:
        attention: to how many bits.
        query: [..., queries, features].
        key: [..., keys, features].
        value: [..., keys, values].
        attn_mask: broadcast to [..., queries, keys]: True where keys are attended to, or added to
            the scores.
        dropout_p: share of probabilities that are dropped.
        is_causal: attend to no later keys.
        scale: of the scores; by default 1/√features.
        enable_gqa: keys and values of one head may serve several heads of queries.

    Returns:
        [..., queries, values], in the dtype of the query.
    """
    query, key, value = (
        _rounded(operand, attention.format_of(name))
        for name, operand in (("q", query), ("k", key), ("v", value))
    )
    probabilities_format = attention.format_of("softmax")
    if probabilities_format is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if enable_gqa:
        key, value = (
            each.repeat_interleave(query.shape[-3] // each.shape[-3], dim=-3)
            for each in (key, value)
        )
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query.float() @ key.float().transpose(-2, -1) * scale
    if is_causal:
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~causal, -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    # Queries that attend to nothing give zeros in torch, and would give NaN by softmax alone.
    nothing = scores.isneginf().all(-1, keepdim=True)
    probabilities = scores.softmax(-1).masked_fill(nothing, 0)
    probabilities = _rounded(functional.dropout(probabilities, dropout_p), probabilities_format)
    return (probabilities @ value.float()).to(query.dtype)


def _rounded(operand: Tensor, chosen: ActivationFormat | None) -> Tensor:
    """The operand with a scale for each of its rows, [..., rows, columns]."""
    if chosen is None:
        return operand
    return chosen.roundtrip(operand, *chosen.dynamic_parameters(operand, (-1,)))
