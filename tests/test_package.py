"""Contents and cost of `import mezzotint`."""

import subprocess
import sys
import textwrap

import pytest

import mezzotint
from mezzotint import _api

HEAVY = ("torch", "diffusers", "transformers", "numpy")


def python(script):
    """Output of a fresh interpreter."""
    command = [sys.executable, "-c", textwrap.dedent(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_the_import_alone_imports_no_library():
    printed = python(f"""
        import sys, mezzotint
        print(mezzotint.__version__)
        print([name for name in {HEAVY} if name in sys.modules])
    """)
    assert printed == [mezzotint.__version__, "[]"]


def test_every_public_name_can_be_imported():
    everything = {}
    exec("from mezzotint import *", everything)
    assert {*_api.__all__} <= {*everything}
    for name in _api.__all__:
        assert getattr(mezzotint, name) is getattr(_api, name)


def test_public_names_are_listed():
    assert {*_api.__all__, "__version__"} <= {*dir(mezzotint)}
    assert mezzotint.__all__ == _api.__all__


def test_subpackages_are_attributes_once_a_name_is_used():
    assert mezzotint.Plan
    assert mezzotint.models.__name__ == "mezzotint.models"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'mezzotint' has no attribute 'quantise'"):
        _ = mezzotint.quantise
    assert not hasattr(mezzotint, "annotations")


ASK_DIFFUSERS = """
from diffusers.quantizers.auto import DiffusersAutoQuantizer
fields = {"quant_method": "mezzotint", "weight_bits": 4, "act_bits": 16}
quantizer = DiffusersAutoQuantizer.from_config(fields, pre_quantized=False)
print(type(quantizer).__name__, quantizer.quantization_config.weight_bits)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import mezzotint, diffusers",
        "import diffusers.quantizers.auto, mezzotint",
        "import mezzotint.models",
    ],
    ids=["before", "after", "by a subpackage of ours"],
)
def test_diffusers_knows_the_method_whichever_is_imported_first(imports):
    assert python(f"{imports}\n{ASK_DIFFUSERS}") == ["MezzotintQuantizer 4"]


def test_importing_diffusers_imports_nothing_of_ours():
    printed = python("""
        import inspect, sys, mezzotint
        from diffusers.quantizers import auto
        print("mezzotint" in auto.AUTO_QUANTIZER_MAPPING)
        print(auto.AUTO_QUANTIZER_MAPPING["quanto"].__name__)
        print("mezzotint.checkpoint" in sys.modules)
        print(type(auto.__loader__) is type(auto.__spec__.loader) is type(inspect.__loader__))
    """)
    assert printed == ["True", "QuantoQuantizer", "False", "True"]
