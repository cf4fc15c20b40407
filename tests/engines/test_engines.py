"""Choosing an engine."""

import sys

import pytest
import torch

import mezzotint as mz
from mezzotint.engines import (
    Engine,
    engine_executions,
    engine_named,
    engine_of,
    engines,
    register_engine,
)
from mezzotint.engines.engine import _ENGINES
from mezzotint.runtime import executions


@pytest.fixture
def not_installed(monkeypatch):
    """Environment without openvino, as if it had never been installed."""
    monkeypatch.setitem(sys.modules, "openvino", None)


def test_without_the_package_the_extra_is_named(packed, not_installed):
    with pytest.raises(mz.MezzotintError, match=r"pip install mezzotint\[openvino\]"):
        mz.with_engine(packed.pipe, "openvino")


def test_auto_is_torch_where_openvino_is_missing(packed, not_installed):
    assert engine_of(mz.with_engine(packed.pipe, "auto").unet).name == "torch"


def test_auto_is_torch_for_a_floating_denoiser(unet):
    assert mz.with_engine(unet.pipe, "auto").unet is unet.denoiser


def test_openvino_refuses_other_devices(packed):
    denoiser = torch.nn.Linear(2, 2, device="meta")
    assert "move the pipeline" in engine_named("openvino").refuse(denoiser)


def test_an_unknown_engine_is_refused_with_those_there_are(packed):
    with pytest.raises(mz.MezzotintError, match="auto, openvino, torch"):
        mz.with_engine(packed.pipe, "warp")


def test_torch_is_taken_back(packed):
    there = mz.with_engine(packed.pipe, "openvino")
    back = mz.with_engine(there, "torch")
    assert type(back.unet) is type(packed.denoiser)
    assert engine_executions(back.unet) == executions(packed.denoiser)
    with torch.no_grad():
        assert torch.equal(packed.call.run(back.unet), packed.expected)


def test_hooks_of_one_pipeline_do_not_reach_the_other(packed):
    there = mz.with_engine(packed.pipe, "openvino")
    there.unet.register_forward_hook(lambda *_: None)
    assert not packed.denoiser._forward_hooks


def test_a_compiled_pipeline_is_not_quantized(unet):
    pipe = mz.with_engine(unet.pipe, "openvino")
    with pytest.raises(mz.MezzotintError, match=r"with_engine\(pipe, \"torch\"\)"):
        mz.apply(pipe, mz.uniform_plan(unet.denoiser, weight_bits=8))


def test_load_takes_an_engine(tmp_path, packed):
    folder = mz.Result(packed.pipe, packed.denoiser.hf_quantizer.plan).save(tmp_path / "saved")
    assert engine_of(mz.load(folder, engine="openvino").unet).name == "openvino"
    assert engine_of(mz.load(folder).unet).name == "torch"


def test_an_engine_of_ones_own_is_found_by_name(packed, monkeypatch):
    class Echo(Engine):
        name = "echo"

        def refuse(self, denoiser):
            return "has no voice"

        def attach(self, denoiser):
            return denoiser

        def executions(self, denoiser):
            return ()

    monkeypatch.setattr(_ENGINES, "items", dict(_ENGINES.items))
    register_engine(Echo())
    assert "echo" in {engine.name for engine in engines()}
    with pytest.raises(mz.MezzotintError, match="echo has no voice"):
        mz.with_engine(packed.pipe, "echo")
