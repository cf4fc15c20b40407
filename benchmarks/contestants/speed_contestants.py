"""Contestants of the comparison in speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """One contestant.

    Attributes:
        name: in tables and on the command line.
        tool: file of this folder.
        environment: whose virtual environment; empty for the one that runs the benchmark.
        bits: of weights and activations, as tables show them.
        options: for the tool's file.
        dtype: of what is not quantized; empty for the device's fast one.
    """

    name: str
    tool: str
    environment: str
    bits: str
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = ""

    @property
    def prepares(self) -> bool:
        """True if the tool writes files of its own before it is loaded."""
        return self.tool in ("ours", "openvino")

    @property
    def files(self) -> str:
        """Name of its own files; our engines share theirs."""
        if self.tool != "ours":
            return self.name
        formats = (self.options["weight"], self.options.get("activation", "float"))
        return "-".join(["ours", *formats]).replace("/", "-")


def speed_contestants() -> tuple[Contestant, ...]:
    """In the order of the table."""
    return (*_floating(), *_ours(), *_peers())


def selected(patterns: list[str] | None) -> tuple[Contestant, ...]:
    """Those whose name fits a pattern such as `torch-*`; all without patterns."""
    found = speed_contestants()
    if patterns is None:
        return found
    for pattern in patterns:
        if not any(fnmatchcase(contestant.name, pattern) for contestant in found):
            names = ", ".join(contestant.name for contestant in found)
            raise SystemExit(f"--contestants: {pattern!r} fits none of: {names}")
    return tuple(e for e in found if any(fnmatchcase(e.name, pattern) for pattern in patterns))


def _floating() -> list[Contestant]:
    compiled = {"compile": True}
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    found = [Contestant(f"torch-{short[d]}", "torch_floating", "", short[d], {}, d) for d in short]
    return found + [
        Contestant(f"torch-{short[d]}-compiled", "torch_floating", "", short[d], compiled, d)
        for d in ("bfloat16", "float16")
    ]


def _ours() -> list[Contestant]:
    token, tensor = {"activation": "int8/token"}, {"activation": "uint8/tensor"}
    plans: dict[str, dict[str, Any]] = {
        "w8a8": {"weight": "int8/channel"} | token,
        "w8a8-static": {"weight": "int8/channel"} | tensor,
        # The widest that processors without VNNI multiply on their 8-bit units.
        "w7a8": {"weight": "int7/channel"} | token,
        "w7a8-static": {"weight": "int7/channel"} | tensor,
        "w4a8": {"weight": "int4/channel"} | token,
        "w4a8-static": {"weight": "int4/channel"} | tensor,
        "w3a8": {"weight": "int3/channel"} | token,
        "w2a8": {"weight": "int2/channel"} | token,
        "w8a16": {"weight": "int8/channel"},
        "w4a16": {"weight": "int4/channel"},
    }

    def contestant(plan: str, suffix: str = "", **options: Any) -> Contestant:
        bits = plan.split("-", maxsplit=1)[0].upper()
        # With OpenVINO, in the environment that OpenVINO's own quantizer is measured in.
        environment = options.get("engine", "")
        name = f"mezzotint-{plan}{suffix}"
        return Contestant(name, "ours", environment, bits, plans[plan] | options)

    found = [contestant(plan) for plan in plans]
    found += [contestant(plan, "-compiled", compile=True) for plan in ("w8a8", "w8a8-static")]
    return found + [
        contestant(plan, "-openvino", engine="openvino")
        for plan in ("w8a8-static", "w7a8-static", "w4a8-static", "w8a16", "w4a16")
    ]


def _peers() -> list[Contestant]:
    def torchao(name: str, bits: str, dtype: str = "", /, **options: Any) -> Contestant:
        return Contestant(f"torchao-{name}", "torchao", "torchao", bits, options, dtype)

    def quanto(name: str, /, **options: Any) -> Contestant:
        return Contestant(f"quanto-{name}", "quanto", "quanto", name.upper(), options)

    def sdnq(name: str, bits: str, /, **options: Any) -> Contestant:
        return Contestant(f"sdnq-{name}", "sdnq", "sdnq", bits, options)

    def openvino(name: str, bits: str, dtype: str = "", /, **options: Any) -> Contestant:
        return Contestant(f"openvino-{name}", "openvino", "openvino", bits, options, dtype)

    return [
        torchao("int8-dynamic", "W8A8", way="int8-dynamic"),
        torchao("int8-dynamic-compiled", "W8A8", way="int8-dynamic", compile=True),
        torchao("int8-weights", "W8A16", way="int8-weights"),
        torchao("int8-weights-compiled", "W8A16", way="int8-weights", compile=True),
        torchao("int4-weights", "W4A16", "bfloat16", way="int4-weights", group=32, bits=4),
        quanto("w8a16", bits=8),
        quanto("w8a8", bits=8, act_bits=8),
        quanto("w4a16", bits=4),
        sdnq("int8", "W8A16", weights="int8"),
        sdnq("int8-matmul", "W8A8", weights="int8", quantized_matmul=True),
        sdnq("uint4", "W4A16", weights="uint4"),
        sdnq("uint4-matmul", "W4A8", weights="uint4", quantized_matmul=True),
        openvino("f32", "fp32", "float32", way="plain"),
        openvino("bf16", "bf16", "bfloat16", way="plain"),
        openvino("int8", "W8A8", way="static"),
        openvino("int8-weights", "W8A16", way="weights", mode="INT8_SYM"),
        openvino("int4-weights", "W4A16", way="weights", mode="INT4_SYM", group=32),
    ]
