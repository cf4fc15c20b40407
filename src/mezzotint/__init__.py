"""Mixed-precision quantization of diffusion models: measure, allocate, pack, report.

>>> import mezzotint as mz
>>> pipe = mz.load("emoji-turbo")
>>> result = mz.quantize(pipe, budget=mz.Budget(weight_bits=4, act_bits=8))
>>> result.save("owl-w4a8")

The names stand in `mezzotint._api`. They are imported when the first of them is used, since torch
and diffusers take seconds, and the command line's help needs neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mezzotint._registration import register_once_imported

__version__ = "0.1.0"

register_once_imported()

if TYPE_CHECKING:
    from mezzotint._api import *  # noqa: F403
else:

    def __getattr__(name: str) -> object:
        if name.startswith("_") and name != "__all__":  # whoever asks may go on to a module of ours
            raise AttributeError(f"module 'mezzotint' has no attribute {name!r}")
        api = import_module("mezzotint._api")
        if name == "__all__" or name in api.__all__:
            return getattr(api, name)
        if name in globals():  # a subpackage, by now
            return globals()[name]
        raise AttributeError(f"module 'mezzotint' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *import_module("mezzotint._api").__all__})
