"""Small damage to bytes, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping


def flipped(content: bytes, rng: random.Random) -> bytes:
    """One bit is another."""
    damaged = bytearray(content)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwritten(content: bytes, rng: random.Random) -> bytes:
    """A few bytes are others."""
    at, size = rng.randrange(len(content)), rng.randint(1, 64)
    return content[:at] + rng.randbytes(size) + content[at + size :]


def truncated(content: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return content[: rng.randrange(len(content))]


def removed(content: bytes, rng: random.Random) -> bytes:
    """A few bytes are missing."""
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randint(1, 64) :]


def inserted(content: bytes, rng: random.Random) -> bytes:
    """A few bytes were added."""
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.randint(1, 64)) + content[at:]


def repeated(content: bytes, rng: random.Random) -> bytes:
    """A piece stands twice."""
    at = rng.randrange(len(content))
    piece = content[at : at + rng.randint(1, 256)]
    return content[:at] + piece + content[at:]


def swapped(content: bytes, rng: random.Random) -> bytes:
    """Two pieces have changed places."""
    size = max(1, min(64, len(content) // 4))
    left = rng.randrange(0, len(content) // 2 - size + 1)
    right = rng.randrange(len(content) // 2, len(content) - size + 1)
    one, other = content[left : left + size], content[right : right + size]
    return content[:left] + other + content[left + size : right] + one + content[right + size :]


MUTATIONS: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    each.__name__: each
    for each in (flipped, overwritten, truncated, removed, inserted, repeated, swapped)
}


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One of them; the same for the same state of `rng`."""
    return MUTATIONS[rng.choice(sorted(MUTATIONS))](content, rng)
