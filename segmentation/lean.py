"""A trained student with nothing in it but what its masks need.

The same function of the image, to the last digits of its arithmetic: batch normalisation is folded into the
convolution before it, which saves a pass over memory each; adapters, which serve training alone, are left out.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Lean(nn.Module):
    """Logits (B, T, S, S) of standardised images (B, 3, S, S), for inference only.

    Parameters
    ----------
    network
        A trained network that sees the image alone, such as a `Student`; it is copied and stays as it is.
    dtype
        Number format of weights and features. Images may come in any, logits are float32 (float64 where that was asked
        for). Weights are converted once here, whereas autocast would do so at every look.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        # Adapters are as large as some decoders: not even copied.
        spared = {id(adapter): nn.Identity() for adapter in getattr(network, "adapters", ())}
        self.network = copy.deepcopy(network, dict(spared)).eval().requires_grad_(False)
        _fold(self.network)
        self.network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """Segment images."""
        logits: Tensor = self.network(images.to(self.dtype)).logits
        return logits if self.dtype == torch.float64 else logits.float()


def _fold(module: nn.Module) -> None:
    """Fold each normalisation that directly follows a convolution in a Sequential, at any depth.

    Only there is the order of children the order of computing.
    """
    for name, child in module.named_children():
        if not isinstance(child, nn.Sequential):
            _fold(child)
            continue
        layers: list[nn.Module] = []
        for layer in child:
            if isinstance(layer, nn.BatchNorm2d) and layers and isinstance(layers[-1], nn.Conv2d):
                layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
            else:
                layers.append(layer)
                _fold(layer)
        setattr(module, name, nn.Sequential(*layers))
