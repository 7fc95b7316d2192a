"""A convolution without bias, and BatchNorm. Used by GoogLeNet, ResNet and EfficientNet."""

from collections import OrderedDict

from torch import nn


def conv_norm(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> nn.Sequential:
    """Convolution then BatchNorm, "same" padding for odd kernels: (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).

    The convolution has no bias: BatchNorm subtracts the mean, and a bias with it (Ioffe & Szegedy 2015, section 3.2).
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum)))
