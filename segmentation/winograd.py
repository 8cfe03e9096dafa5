"""3x3 convolutions with 4/9 of the multiplications, for processors: Winograd's minimal filtering F(2x2, 3x3).

An algebraic identity of the convolution and of its gradients (Lavin and Gray, CVPR 2016, arXiv 1509.09308): tiles of
4 x 4 pixels, a step of two apart, and the kernels go through small fixed sums, are multiplied there, and come back as
2 x 2 pixels. In bfloat16 the sums round a little more often than the plain form does. It pays where channels are many
and the multiplications outweigh the sums.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

NARROWEST = 128
"""Channels, of input and output, from which it pays."""
LEAST = 500_000_000
"""Multiplications of the plain form from which it pays: below, the many small sums cost more than they save."""
CHUNK = 2**22
"""Numbers of a temporary, about: what fits into a processor's cache, and the allocator keeps for the next."""


class Convolution(nn.Conv2d):
    """A padded 3x3 convolution without bias, which under bfloat16 autocast on a CPU takes the faster of two forms."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        if not self._pays(input):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return convolve(input.to(torch.bfloat16), self.weight, _kernels_of(self.weight))

    def _pays(self, images: Tensor) -> bool:
        # In this order: the sizes need not be numbers where a network is traced for another engine.
        return (
            images.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and multiplies_slowly()
            and min(self.in_channels, self.out_channels) >= NARROWEST
            and 9 * images.numel() * self.out_channels >= LEAST
            and not (images.shape[2] % 2 or images.shape[3] % 2)
        )


_shared: ContextVar[dict[int, Tensor] | None] = ContextVar("kernels of a step", default=None)


@contextlib.contextmanager
def shared_kernels() -> Iterator[None]:
    """Transform each kernel once for all looks within; weights must stay as they are until the end."""
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def _kernels_of(weight: Tensor) -> Tensor:
    store = _shared.get()
    if store is None:
        return transformed(weight.detach(), torch.bfloat16)
    if id(weight) not in store:
        store[id(weight)] = transformed(weight.detach(), torch.bfloat16)
    return store[id(weight)]


@functools.cache
def multiplies_slowly() -> bool:
    """Whether this processor computes bfloat16 in its vector units: with a matrix unit (AMX) sums would dominate."""
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16")) and not flags.get("amx_bf16")


def convolve(images: Tensor, weight: Tensor, kernels: Tensor) -> Tensor:
    """Convolve images (B, I, H, W), H and W even, with a weight (O, I, 3, 3), padded by one pixel of zeros.

    Parameters
    ----------
    kernels : what `transformed` makes of the weight, in the images' number format
    """
    result: Tensor = _Winograd.apply(images, weight, kernels)  # type: ignore[no-untyped-call]
    return result


def transformed(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the transform (16, O, I) of a weight's kernels (O, I, 3, 3)."""
    outputs, inputs = weight.shape[:2]
    result = weight.new_empty(16, outputs, inputs, dtype=dtype)
    both = _both(weight)
    for block in _blocks(weight):
        part = weight[block].permute(3, 2, 0, 1).reshape(9, -1)
        result[:, block] = (both @ part).view(16, -1, inputs)
    return result


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight, kernels)
        batch, _, height, width = images.shape
        result = images.new_empty(batch, height, width, len(weight))
        last = images.permute(0, 2, 3, 1)
        for part in _chunks(images):
            _gather(torch.bmm(_spread(last[part]), kernels.transpose(1, 2)), result[part])
        return result.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        images, weight, kernels = ctx.saved_tensors
        last = images.permute(0, 2, 3, 1)
        gradient = gradients[0].permute(0, 2, 3, 1).contiguous()
        back = torch.empty_like(last, memory_format=torch.contiguous_format)
        total: Tensor | None = None
        for part in _chunks(images):
            planes = _gather_back(gradient[part])
            own = torch.bmm(planes.transpose(1, 2), _spread(last[part]))
            total = own if total is None else total.to(weight.dtype).add_(own)
            _spread_back(torch.bmm(planes, kernels), back[part])
        assert total is not None
        return back.permute(0, 3, 1, 2), _transformed_back(total, weight), None


def _both(weight: Tensor) -> Tensor:
    """Return the transform of kernels in both directions, (16, 9); its last row has the sign that `_sums` expects."""
    one = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, -1]])
    return torch.kron(one, one)


def _blocks(weight: Tensor) -> list[slice]:
    rows = max(1, CHUNK // (16 * weight.shape[1]) // 4)
    return [slice(start, start + rows) for start in range(0, len(weight), rows)]


def _chunks(images: Tensor) -> list[slice]:
    size = max(1, CHUNK // (4 * images[0].numel()))
    return [slice(start, start + size) for start in range(0, len(images), size)]


def _transformed_back(gradient: Tensor, weight: Tensor) -> Tensor:
    """Transpose of `transformed`: (16, O, I) -> (O, I, 3, 3)."""
    result = torch.empty_like(weight)
    both = _both(weight).T
    for block in _blocks(weight):
        part = both @ gradient[:, block].to(weight.dtype).reshape(16, -1)
        result[block].permute(3, 2, 0, 1).copy_(part.view(3, 3, -1, weight.shape[1]))
    return result


def _spread(images: Tensor) -> Tensor:
    """Return the sums of all tiles of images (b, H, W, C): (16, tiles, C), rows within columns."""
    batch, height, width, channels = images.shape
    padded = images.new_empty(batch, height + 2, width + 2, channels)
    padded[:, 0], padded[:, -1], padded[:, :, 0], padded[:, :, -1] = 0, 0, 0, 0
    padded[:, 1:-1, 1:-1] = images
    rows = images.new_empty(4, batch, height // 2, width + 2, channels)
    _differences(padded[:, ::2], padded[:, 1::2], rows, 1)
    planes = images.new_empty(4, 4, batch, height // 2, width // 2, channels)
    _differences(rows[:, :, :, ::2], rows[:, :, :, 1::2], planes, 3)
    return planes.view(16, -1, channels)


def _differences(even: Tensor, odd: Tensor, out: Tensor, axis: int) -> None:
    length = even.shape[axis] - 1
    first, third = even.narrow(axis, 0, length), even.narrow(axis, 1, length)
    second, fourth = odd.narrow(axis, 0, length), odd.narrow(axis, 1, length)
    torch.sub(first, third, out=out[0])
    torch.add(second, third, out=out[1])
    torch.sub(third, second, out=out[2])
    torch.sub(second, fourth, out=out[3])


def _spread_back(planes: Tensor, out: Tensor) -> None:
    """Transpose of `_spread`, into (b, H, W, C)."""
    batch, height, width, channels = out.shape
    rows = planes.new_empty(4, batch, height // 2, width // 2, 2, channels)
    parts = planes.view(4, 4, batch, height // 2, width // 2, channels)
    _differences_back(parts, rows[..., 0, :], rows[..., 1, :], 3)
    halves = out.view(batch, height // 2, 2, width, channels)
    _differences_back(rows.view(4, batch, height // 2, width, channels), halves[:, :, 0], halves[:, :, 1], 1)


def _differences_back(parts: Tensor, odd: Tensor, even: Tensor, axis: int) -> None:
    length = odd.shape[axis] - 1
    torch.sub(parts[1], parts[2], out=odd).add_(parts[3])
    odd.narrow(axis, 1, length).sub_(parts[3].narrow(axis, 0, length))
    torch.add(parts[1], parts[2], out=even).sub_(parts[0])
    even.narrow(axis, 0, length).add_(parts[0].narrow(axis, 1, length))


def _gather(planes: Tensor, out: Tensor) -> None:
    """Bring products (16, tiles, C) back to pixels (b, H, W, C)."""
    batch, height, width, channels = out.shape
    columns = planes.new_empty(4, batch, height // 2, width // 2, 2, channels)
    parts = planes.view(4, 4, batch, height // 2, width // 2, channels)
    _sums(parts, columns[..., 0, :], columns[..., 1, :])
    rows = out.view(batch, height // 2, 2, width, channels)
    _sums(columns.view(4, batch, height // 2, width, channels), rows[:, :, 0], rows[:, :, 1])


def _sums(parts: Tensor, first: Tensor, second: Tensor) -> None:
    torch.add(parts[0], parts[1], out=first).add_(parts[2])
    torch.sub(parts[1], parts[2], out=second).add_(parts[3])


def _gather_back(gradient: Tensor) -> Tensor:
    """Transpose of `_gather`: (b, H, W, C) -> (16, tiles, C)."""
    batch, height, width, channels = gradient.shape
    squares = gradient.view(batch, height // 2, 2, width // 2, 2, channels)
    planes = gradient.new_empty(4, 4, batch, height // 2, width // 2, channels)
    upper, lower = squares[:, :, 0], squares[:, :, 1]
    for row, part in enumerate((upper, upper + lower, upper - lower, lower)):
        left, right = part[..., 0, :], part[..., 1, :]
        planes[0, row] = left
        torch.add(left, right, out=planes[1, row])
        torch.sub(left, right, out=planes[2, row])
        planes[3, row] = right
    return planes.view(16, -1, channels)
