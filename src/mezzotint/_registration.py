"""Makes diffusers and transformers know our `quant_method`, and peft our layers.

Whoever is imported first. diffusers and transformers have two dictionaries each in one of their
modules. Where diffusers is imported already, our classes go into its own at once; else a finder of
`sys.meta_path` waits for the module, and adds entries which import our classes when a model asks
for them: neither package imports the other before somebody needs both. (transformers has public
hooks as well, which want the classes themselves, and so all that they import.) peft has a function
that chooses the adapter of a layer: it is asked for all layers but our packed ones. Diffusers'
registry of attention has a name of ours as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from typing_extensions import override

MODULE = "diffusers.quantizers.auto"

PEFT_MODULE = "peft.tuners.lora.model"

TRANSFORMERS_MODULE = "transformers.quantizers.auto"

METHOD = "mezzotint"

BACKEND_MODULE = "diffusers.models.attention_dispatch"

BACKEND = "mezzotint"
"""Our name among diffusers' back ends of attention."""

_ATTENTION = "mezzotint.runtime.attention"

#: Module → dictionary in it → our class, in `mezzotint.checkpoint`.
_CLASSES = {
    MODULE: {
        "AUTO_QUANTIZER_MAPPING": "MezzotintQuantizer",
        "AUTO_QUANTIZATION_CONFIG_MAPPING": "MezzotintConfig",
    },
    TRANSFORMERS_MODULE: {
        "AUTO_QUANTIZER_MAPPING": "MezzotintTextQuantizer",
        "AUTO_QUANTIZATION_CONFIG_MAPPING": "MezzotintConfig",
    },
}


def register_once_imported() -> None:
    """Register now where a module is imported already, else as soon as it is."""
    if MODULE in sys.modules:
        import_module("mezzotint.checkpoint").register_with_diffusers()
    if TRANSFORMERS_MODULE in sys.modules:
        _add_method(sys.modules[TRANSFORMERS_MODULE])
    if PEFT_MODULE in sys.modules:
        _adapt_packed_layers(sys.modules[PEFT_MODULE])
    if BACKEND_MODULE in sys.modules:
        _add_backend(sys.modules[BACKEND_MODULE])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Methods(dict[str, Any]):
    """Quantization methods and their classes, of which ours is imported when it is asked for."""

    def __init__(self, methods: Mapping[str, Any], class_name: str) -> None:
        super().__init__(methods)
        self[METHOD] = None
        self._class_name = class_name

    @override
    def __getitem__(self, method: str) -> Any:
        if method == METHOD and super().__getitem__(method) is None:
            self[method] = getattr(import_module("mezzotint.checkpoint"), self._class_name)
        return super().__getitem__(method)


def _add_method(module: ModuleType) -> None:
    """Add our entries to the dictionaries of diffusers' or transformers' module."""
    for name, class_name in _CLASSES[module.__name__].items():
        if METHOD not in getattr(module, name):
            setattr(module, name, _Methods(getattr(module, name), class_name))


def _adapt_packed_layers(module: ModuleType) -> None:
    """Let our function choose the adapters of packed layers, in peft's module."""
    default: Callable[..., Any] = module.__dict__["dispatch_default"]
    if hasattr(default, "__wrapped__"):
        return

    @wraps(default)
    def dispatch(target: Any, adapter_name: str, **kwargs: Any) -> Any:
        # Where our layers have not been imported, none is packed.
        if "mezzotint.runtime" not in sys.modules:
            return default(target, adapter_name, **kwargs)
        adapt = import_module("mezzotint.checkpoint.diffusers.lora").adapter_layer
        return adapt(target, adapter_name, **kwargs) or default(target, adapter_name, **kwargs)

    module.__dict__["dispatch_default"] = dispatch


def _add_backend(module: ModuleType) -> None:
    """Add a back end of attention to diffusers' module: a name in its enumeration, and a function.

    The function is imported when attention is first computed by it.
    """
    names = getattr(module, "AttentionBackendName", None)
    registry = getattr(module, "_AttentionBackendRegistry", None)
    if names is None or registry is None or BACKEND in names._value2member_map_:
        return
    member = str.__new__(names, BACKEND)
    member._name_, member._value_ = BACKEND.upper(), BACKEND
    names._member_map_[member._name_] = names._value2member_map_[BACKEND] = member
    names._member_names_.append(member._name_)

    def compute(  # noqa: PLR0913, PLR0917  (the signature of diffusers' back ends)
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        _parallel_config: Any = None,
    ) -> Any:
        options = dropout_p, is_causal, scale, enable_gqa
        if _parallel_config is not None:
            native = registry._backends[names.NATIVE]
            given = query, key, value, attn_mask, *options
            return native(*given, _parallel_config=_parallel_config)
        # Compilers follow a look into what is imported, and no import.
        ours = sys.modules.get(_ATTENTION) or import_module(_ATTENTION)
        return ours.attention_of_tokens(query, key, value, attn_mask, *options)

    registry.register(member)(compute)


_WHEN_IMPORTED = {
    BACKEND_MODULE: _add_backend,
    MODULE: _add_method,
    TRANSFORMERS_MODULE: _add_method,
    PEFT_MODULE: _adapt_packed_layers,
}


class _Finder(MetaPathFinder):
    """Finds the modules where the other finders do, with a loader that registers us."""

    @override
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname not in _WHEN_IMPORTED:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((each for each in specs if each is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads a module as its own loader does, then adds our entries."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    @override
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    @override
    def exec_module(self, module: ModuleType) -> None:
        # Its own, again: whoever asks a module for its source asks its loader.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _WHEN_IMPORTED[module.__name__](module)
