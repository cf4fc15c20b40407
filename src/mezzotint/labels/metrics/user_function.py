"""A function of the user's for a metric."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import UsageError, first_line
from mezzotint.labels.metrics.image_label import ImageLabel, mean_and_error


@dataclass(frozen=True)
class UserFunction(ImageLabel):
    """Mean of what a function makes of each pair of images; lower for better ones.

    It is given the images of the floating and of the changed model, float32 [n, 3, h, w] in
    [0, 1], of the same prompts and seeds, and returns n numbers.

    Attributes:
        count: number of images.
        path: `module:function`.
    """

    count: int = 64
    path: str = ""

    kind: ClassVar[str] = "function"
    bounds: ClassVar[Mapping[str, tuple[float, float]]] = {
        **ImageLabel.bounds,
        kind: (-math.inf, math.inf),
    }

    @property
    @override
    def name(self) -> str:
        return f"{self.path} of {self.count} images"

    @property
    def function(self) -> Callable[[Tensor, Tensor], Any]:
        """The function.

        Raises:
            UsageError: it cannot be imported.
        """
        module, _, attribute = self.path.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as cause:  # whatever a foreign module may raise
            raise UsageError(
                f"metric {self.path}: cannot be imported ({first_line(cause)}); name a function as "
                "module:function, with the module's folder in PYTHONPATH"
            ) from cause
        if not callable(found):
            raise UsageError(f"metric {self.path}: is a {type(found).__name__}, not a function")
        return found  # type: ignore[no-any-return]

    @override
    def check_available(self) -> None:
        _ = self.function

    @override
    def check_images(self, images: Tensor) -> None:
        """Let the function compare images with themselves: what it does wrong is told at once.

        Raises:
            UsageError: it fails, or returns something else than a finite number for each.
        """
        self.compared(images[: self.count], images[: self.count])

    @override
    def compared(self, references: Tensor, images: Tensor) -> tuple[float, float]:
        function = self.function
        try:
            values = np.asarray(function(references.clone(), images.clone()), dtype=np.float64)
        except Exception as cause:  # whatever a foreign function may raise
            raise UsageError(f"metric {self.path}: fails ({first_line(cause)})") from cause
        if values.shape != (self.count,):
            raise UsageError(
                f"metric {self.path}: returned numbers of shape {list(values.shape)} for "
                f"{self.count} images; return one for each"
            )
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UsageError(
                f"metric {self.path}: returned {values[place]} for image {place}; return finite "
                "numbers"
            )
        return mean_and_error(values)
