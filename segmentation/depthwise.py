"""Depthwise convolutions in bfloat16 on a processor, whose gradients take their fast way there.

oneDNN has quick bfloat16 kernels for these convolutions forwards, but backwards none for strides (34 against 2.3 ms of
float32 for 96 channels at 80 x 80, batch 8, one thread) and for kernels beyond 3 x 3 (19 against 6 ms for 240 channels
at 20 x 20). Those gradients are computed in float32 here, which is also the more exact number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

_FAST_KERNEL = 3


def quick_depthwise(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which depthwise convolutions take the quick way, where there is a slow one.

    That is in training on a processor under bfloat16 autocast; anywhere else it changes nothing.
    """
    slow = (
        device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )
    return _Redirected() if slow else contextlib.nullcontext()


class _Redirected(TorchFunctionMode):
    """Redirects calls of conv2d, whoever makes them: the modules are the libraries' own."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d:
            return _conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    depthwise = groups > 1 and groups == len(weight) == input.shape[1]
    slow = max(_pair(stride)) > 1 or max(weight.shape[2:]) > _FAST_KERNEL
    if not depthwise or not slow or isinstance(padding, str):
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    result: Tensor = _Depthwise.apply(  # type: ignore[no-untyped-call]
        input.bfloat16(), weight.bfloat16(), list(_pair(stride)), list(_pair(padding)), list(_pair(dilation))
    )
    return result if bias is None else result + bias.to(result.dtype).view(1, -1, 1, 1)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution, bfloat16 forwards; each gradient in whatever is quicker."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]
    ) -> Tensor:
        """Convolve (B, C, H, W) with (C, 1, h, w)."""
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, dilation
        return functional.conv2d(x, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Return the gradients of the features and the weights."""
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        strided, wide = max(stride) > 1, max(weight.shape[2:]) > _FAST_KERNEL

        def gradients(exact: bool, of_x: bool, of_weight: bool) -> tuple[Tensor, Tensor]:
            parts = [one.float() if exact else one for one in (gradient, x, weight)]
            geometry = (stride, padding, dilation, False, [0, 0], len(weight), [of_x, of_weight, False])
            found = torch.ops.aten.convolution_backward(*parts, None, *geometry)
            return found[0], found[1]

        of_x, of_weight = ctx.needs_input_grad[:2]
        to_x = gradients(strided, True, False)[0].to(x.dtype) if of_x else None
        to_weight = gradients(wide, False, True)[1].to(weight.dtype) if of_weight else None
        return to_x, to_weight, None, None, None
