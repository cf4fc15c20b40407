"""Contestants of the comparison in quality, width by width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PEERS = ("torchao", "quanto", "sdnq", "nncf")
SETTINGS = ("W8A8", "W8A16", "W4A16", "W3A16", "W2A16")


@dataclass(frozen=True, eq=False)
class Candidate:
    """One of a peer's settings of one width; the one with the least noise represents it."""

    label: str
    tool: str
    environment: str
    options: Mapping[str, Any]


def candidates(peer: str, setting: str) -> tuple[Candidate, ...]:
    """Settings that the peer offers at these bits, most promising first; empty for none."""
    weight_bits, act_bits = (int(part) for part in setting[1:].split("A"))
    found = _OFFERS[peer](weight_bits, act_bits)
    environment = "openvino" if peer == "nncf" else peer
    return tuple(Candidate(label, environment, environment, opts) for label, opts in found.items())


def _torchao(bits: int, act_bits: int) -> dict[str, dict[str, Any]]:
    if act_bits == 8:
        return {"int8 dynamic": {"way": "int8-dynamic"}}
    found: dict[str, dict[str, Any]] = {f"int{bits}, group 32": {"group": 32}}
    found[f"int{bits}, per channel"] = {}
    return {label: {"way": "intx", "bits": bits} | options for label, options in found.items()}


def _quanto(bits: int, act_bits: int) -> dict[str, dict[str, Any]]:
    if bits == 3:
        return {}
    options = {"bits": bits, "act_bits": act_bits}
    return {f"qint{bits}" + (", activations qint8" if act_bits == 8 else ""): options}


def _sdnq(bits: int, act_bits: int) -> dict[str, dict[str, Any]]:
    if act_bits == 8:
        return {"int8 matmul": {"weights": "int8", "quantized_matmul": True}}
    return {
        f"{kind}{bits}" + (", SVD" if svd else ""): {"weights": f"{kind}{bits}", "svd": svd}
        for kind in ("uint", "int")
        for svd in (True, False)
    }


def _nncf(bits: int, act_bits: int) -> dict[str, dict[str, Any]]:
    if act_bits == 8:
        corrected = {"way": "static", "bias_correction": True}
        return {"PTQ, bias correction": corrected, "PTQ": {"way": "static"}}
    if bits == 8:
        return {
            f"INT8_{kind}": {"way": "weights", "mode": f"INT8_{kind}"} for kind in ("ASYM", "SYM")
        }
    modes = [f"INT{bits}_ASYM", f"INT{bits}_SYM"] if bits == 4 else [f"INT{bits}_SYM"]
    estimated = {"scale_estimation": True}
    return {
        f"{mode}, group 32" + (", scale estimation" if aware else ""): {
            "way": "weights", "mode": mode, "group": 32, "data_aware": aware
        }
        for mode in modes
        for aware in (estimated, {})
    }  # fmt: skip


_OFFERS = {"torchao": _torchao, "quanto": _quanto, "sdnq": _sdnq, "nncf": _nncf}
