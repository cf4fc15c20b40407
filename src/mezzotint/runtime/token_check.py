"""Comparison of the first tokens of a call with those that constants were calibrated for."""

from __future__ import annotations

import warnings
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from mezzotint.errors import CalibrationWarning
from mezzotint.formats import from_bits
from mezzotint.runtime.handles import Handles
from mezzotint.runtime.stored import version_of

OTHER, NEAR, SAME = 0, 1, 2
"""Kinds of first tokens: nearer to zero than to the known one, nearer to that, equal to it."""

TOLERANCE = 0.04
"""Greatest difference of tokens that count as equal: root mean square over the channels, each
relative to its own magnitude plus the median magnitude, beside which a few huge ones do not count.

Encoders round by their dtype. On the embedded models the same text differs by 0.007 (turbo) and
0.032 (dit, whose projection of the text rounds as well) when all is computed in bfloat16, and at
0.04 the stored outputs are wrong by 1% at most: half the error of 4-bit weights at their best.
"""

OTHER_TOKENS = (
    "the first token of a text is another than the one that this model's stored outputs were "
    "calibrated for, as with zeros for a negative prompt, another clip_skip, an adapter on the "
    "text encoder, or another encoder; its outputs are computed through quantized layers instead; "
    "for better ones, quantize with calls that have it"
)

_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


@dataclass(frozen=True, eq=False)
class KnownTokens:
    """First tokens that outputs were calibrated for.

    Attributes:
        values: float32 [count, features].
        weights: of differences in each channel, likewise.
    """

    values: Tensor
    weights: Tensor

    @classmethod
    def of(cls, stored: Tensor) -> KnownTokens:
        """Read bfloat16 values that are stored as int16 bits, [count, features]."""
        values = from_bits(stored, torch.bfloat16)
        magnitudes = values.abs()
        usual = magnitudes + magnitudes.median(-1, keepdim=True).values
        return cls(values, usual.clamp_min(torch.finfo(torch.float32).tiny).reciprocal())

    def kinds(self, first: Tensor) -> Tensor:
        """The kind of each first token of [batch, count, features]: uint8 [batch, count]."""
        x = first.detach().float()
        difference = x - self.values
        same = (difference * self.weights).square().mean(-1) <= TOLERANCE**2
        near = difference.square().sum(-1) < x.square().sum(-1)
        return near.to(torch.uint8).masked_fill(same, SAME)


@dataclass(eq=False)
class _Compared:
    """Kinds of one input's first tokens by what they were compared with; None where all are equal.

    Attributes:
        version: of the input, which has changed since where it has another.
    """

    version: int
    kinds: dict[KnownTokens, Tensor | None] = field(default_factory=dict)


class TokenCheck:
    """Tells the layers of a denoiser of first tokens that their constants do not stand for.

    All layers that read one tensor compare it once: what was found is kept for as long as the
    tensor lives unchanged, which is a whole run of the sampler for embeddings of a text. Users are
    told once. Copies and pickles begin anew.
    """

    def __init__(self) -> None:
        self._handle = _CHECKS.handle_of(self)
        self._told = False
        self._unread = 0
        self._known: MutableMapping[Tensor, tuple[int, KnownTokens]] = WeakIdKeyDictionary()
        self._by_value: dict[tuple[torch.device, bytes], KnownTokens] = {}
        self._compared: MutableMapping[Tensor, _Compared] = WeakIdKeyDictionary()

    def kinds(self, x: Tensor, stored: Tensor) -> Tensor | None:
        """Kinds of an input's first tokens: uint8 [batch, count]; None where all are `SAME`.

        Where a tracer or a graph that is being captured stands between, they are always given.

        Args:
            x: input, [batch, tokens, features].
            stored: tokens that outputs were calibrated for, bfloat16 as int16 bits.
        """
        count, features = stored.shape
        if x.ndim != 3 or x.shape[1] < count or x.shape[2] != features:
            return None  # which the structure refuses
        if torch.compiler.is_compiling() and not _exporting():
            kinds: Tensor = compared_tokens(x[:, :count].detach(), stored, self._handle)
            return kinds
        if _exporting() or _becomes_a_graph(x):
            return KnownTokens.of(stored).kinds(x[:, :count])
        return self._kinds(x, stored)

    def _kinds(self, x: Tensor, stored: Tensor) -> Tensor | None:
        known = self._known_tokens(stored)
        compared = self._compared.get(x)
        # Inference tensors count no versions: each call compares them anew.
        if compared is None or x.is_inference() or compared.version != version_of(x):
            compared = _Compared(version_of(x))
            self._compared[x] = compared
        if known not in compared.kinds:
            kinds = known.kinds(x[:, : len(stored)])
            compared.kinds[known] = None if self._all_same(kinds) else kinds
        return compared.kinds[known]

    def _known_tokens(self, stored: Tensor) -> KnownTokens:
        """Stored tokens, ready to be compared: one object for all layers that store the same."""
        found = self._known.get(stored)
        if found is None or found[0] != version_of(stored):
            key = stored.device, stored.cpu().numpy().tobytes()
            known = self._by_value.setdefault(key, KnownTokens.of(stored))
            found = self._known[stored] = version_of(stored), known
        return found[1]

    def _all_same(self, kinds: Tensor) -> bool:
        same = bool((kinds == SAME).all())
        if not same:
            self.tell()
        return same

    def compared(self, first: Tensor, stored: Tensor) -> Tensor:
        """Kinds of first tokens with values, for compiled code, which has no tensor twice."""
        if _becomes_a_graph(first):
            return KnownTokens.of(stored).kinds(first)
        kinds = self._known_tokens(stored).kinds(first)
        if not self._told:
            # A device that is read from finishes its work first: at the 1st, 2nd, 4th, 8th call…
            self._unread += 1
            if first.device.type == "cpu" or not self._unread & (self._unread - 1):
                self._all_same(kinds)
        return kinds

    def tell(self) -> None:
        """Warn, once, that first tokens are others than the known ones."""
        if not self._told:
            self._told = True
            warnings.warn(OTHER_TOKENS, CalibrationWarning, stacklevel=2)

    def __deepcopy__(self, memo: dict[int, Any]) -> TokenCheck:
        return TokenCheck()

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenCheck, ()


_CHECKS: Handles[TokenCheck] = Handles()


@torch.library.custom_op("mezzotint::compared_tokens", mutates_args=())
def compared_tokens(first: Tensor, stored: Tensor, handle: int) -> Tensor:
    """Kinds of first tokens, as the check behind `handle` finds them: uint8 [batch, count]."""
    return _CHECKS.find(handle).compared(first, stored)


@compared_tokens.register_fake
def _(first: Tensor, stored: Tensor, handle: int) -> Tensor:
    return first.new_empty(first.shape[:2], dtype=torch.uint8)


def _becomes_a_graph(x: Tensor) -> bool:
    """Return whether what is computed becomes a graph, of whose values nothing can be known."""
    tracer: Any = torch._C  # whose stubs lack this
    if type(x) is not Tensor or x.is_meta or tracer._get_tracing_state() is not None:
        return True
    return x.is_cuda and torch.cuda.is_current_stream_capturing()
