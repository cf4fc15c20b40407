"""Float convolutions that are right on every processor, and a check on those of oneDNN.

torch hands convolutions on processors to oneDNN, which computes some geometries wrongly or ends
the process, in 8-bit integers and in bfloat16 alike (torch 2.13, oneDNN 3.12). Which ones depends
on the processor, so all that were ever found to fail are avoided everywhere, and the first output
of every other geometry is compared with a plain product at a few of its pixels.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mezzotint.runtime.geometry import ConvGeometry, Pair

#: More channels of one group have given errors as large as the output.
MOST_CHANNELS_OF_A_GROUP = 32


def onednn_hazard(geometry: ConvGeometry, channels: int, size: Pair | None = None) -> str | None:
    """Reason why oneDNN may compute a convolution wrongly; None where nothing is known against it.

    Args:
        geometry: of the convolution.
        channels: inputs of one group.
        size: height and width of the input, where they are known: some geometries only fail on
            small ones.
    """
    if geometry.groups > 1 and channels > MOST_CHANNELS_OF_A_GROUP:
        return f"oneDNN is wrong for groups of more than {MOST_CHANNELS_OF_A_GROUP} channels"
    if geometry.stride[0] != geometry.stride[1]:
        return "oneDNN is wrong for some strides that differ in height and width"
    for axis in range(2):
        padding, extent = max(geometry.padding[axis]), geometry.extent[axis]
        if padding >= extent:
            return "oneDNN is wrong where a window lies wholly in padding"
        gap = geometry.dilation[axis] if geometry.kernel[axis] > 1 else 0
        if size is not None and padding and gap > size[axis]:
            return "oneDNN is wrong where all taps of a window lie in padding"
    return _mistrusted.get((geometry, channels))


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
    """The convolution of `x` [n, c, h, w] or [c, h, w]; differentiable, and traceable."""
    size = x.shape[-2], x.shape[-1]
    if x.device.type == "cpu" and onednn_hazard(geometry, weight.shape[1], size) is not None:
        return _by_products(x, weight, bias, geometry)
    padded = geometry.with_odd_padding(x)
    return functional.conv2d(
        padded, weight, bias, geometry.stride, geometry.even_padding, geometry.dilation,
        geometry.groups,
    )  # fmt: skip


def checked_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry
) -> Tensor:
    """The same, of values at hand: the first output of a geometry is compared with products."""
    y = conv2d(x, weight, bias, geometry)
    # Within autocast, the output says what was computed in.
    key = geometry, tuple(weight.shape), tuple(x.shape[-2:]), y.dtype
    if y.dtype != torch.float64 and y.ndim == 4 and unchecked(key):
        tolerance = max(1e-4, 4 * torch.finfo(y.dtype).eps)
        if not is_right(key, y, Convolution(x, weight, bias, geometry), tolerance):
            return conv2d(x, weight, bias, geometry)
    return y


@dataclass(frozen=True)
class Convolution:
    """A convolution of values: x [n, c, h, w], weight [o, c / groups, kernel], bias [o] or None."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    geometry: ConvGeometry


def unchecked(key: Hashable) -> bool:
    """Return whether no output under that key has been compared in this process."""
    return key not in _checked


def is_right(key: Hashable, y: Tensor, of: Convolution, tolerance: float) -> bool:
    """Return whether an output [n, o, h, w] agrees with plain products at a few pixels of an image.

    A geometry that is wrong once is a hazard from then on, in this process.

    Args:
        key: what need not be compared again.
        y: the output.
        of: what it should be.
        tolerance: how far outputs may be off, as part of Σ|x||w| + |bias|.
    """
    if not y.numel():
        return True
    rows, columns = (_few(count) for count in y.shape[-2:])
    with torch.autocast("cpu", enabled=False):
        expected, bound = _expected(of, rows, columns)
    found = y[:1].float().index_select(2, rows).index_select(3, columns).flatten(2)
    # NaN in the input is NaN in the output as well, and tells nothing.
    if bool(((found - expected).abs() > tolerance * bound).any()):
        reason = "oneDNN gave a wrong output for this geometry in this process"
        _mistrusted[of.geometry, of.weight.shape[1]] = reason
        return False
    if bool(expected.isfinite().all()):
        _checked.add(key)
    return True


def _few(count: int) -> Tensor:
    """The first, middle and last of `count` places."""
    return torch.tensor(sorted({0, count // 2, count - 1}), device="cpu")


def _expected(of: Convolution, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of the first image at some rows and columns, and Σ|x||w| + |bias| of each."""
    windows = _windows(of.x[:1].float(), of.geometry, rows, columns)
    matrix = of.weight.float().flatten(1)
    expected = _grouped_product(windows, matrix, of.geometry.groups)
    bound = _grouped_product(windows.abs(), matrix.abs(), of.geometry.groups)
    if of.bias is None:
        return expected, bound
    bias = of.bias.float().view(-1, 1)
    return expected + bias, bound + bias.abs()


#: Comparisons made, and failures: channels of a group go with a geometry.
_checked: set[Hashable] = set()
_mistrusted: dict[tuple[ConvGeometry, int], str] = {}


def _windows(x: Tensor, geometry: ConvGeometry, rows: Tensor, columns: Tensor) -> Tensor:
    """Inputs in the windows at some rows and columns of the output: [1, c · kernel, windows]."""
    padded, (high, wide) = geometry.padded(x), geometry.kernel
    (down, right), (far, apart) = geometry.stride, geometry.dilation
    at_y = (rows * down).view(-1, 1) + torch.arange(high, device="cpu") * far
    at_x = (columns * right).view(-1, 1) + torch.arange(wide, device="cpu") * apart
    found = padded.index_select(2, at_y.flatten()).index_select(3, at_x.flatten())
    found = found.view(1, x.shape[1], len(rows), high, len(columns), wide)
    return found.permute(0, 1, 3, 5, 2, 4).reshape(1, -1, len(rows) * len(columns))


def _grouped_product(windows: Tensor, matrix: Tensor, groups: int) -> Tensor:
    """[n, o, pixels] of windows [n, c · kernel, pixels] and a matrix [o, c / groups · kernel]."""
    outputs, columns = matrix.shape
    apart = windows.reshape(len(windows), groups, columns, windows.shape[2])  # of no image, perhaps
    return torch.matmul(matrix.reshape(groups, outputs // groups, columns), apart).flatten(1, 2)


def _by_products(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
    """The convolution as products of the weight by all windows, which are large: image by image."""
    images = x if x.ndim == 4 else x.unsqueeze(0)
    size = geometry.output_size(images.shape[2], images.shape[3])
    matrix = weight.flatten(1)
    outputs = []
    for image in torch.split(images, 1):
        windows = functional.unfold(
            geometry.padded(image), geometry.kernel, geometry.dilation, 0, geometry.stride
        )
        outputs.append(_grouped_product(windows, matrix, geometry.groups))
    y = torch.cat(outputs).view(len(images), len(matrix), *size)
    if bias is not None:
        y = y + bias.view(-1, 1, 1)
    return y if x.ndim == 4 else y.squeeze(0)
