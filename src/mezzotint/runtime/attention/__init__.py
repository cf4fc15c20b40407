"""Attention on processors, in the way that was measured to be the fastest for each shape."""

from mezzotint.runtime.attention.function import attention, attention_of_tokens
from mezzotint.runtime.attention.processors import has_fast_attention, use_fast_attention
from mezzotint.runtime.attention.times import Times

__all__ = ["Times", "attention", "attention_of_tokens", "has_fast_attention", "use_fast_attention"]
