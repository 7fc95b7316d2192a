"""What a layer costs: parameters and multiply-accumulates (MACs). One MAC is two floating-point operations."""


def conv_macs(*, in_channels: int, out_channels: int, kernel_area: int, groups: int, out_pixels: int) -> int:
    """MACs of a convolution on one image: each output value is a sum over kernel_area * in_channels / groups products.

    `kernel_area` is the number of taps (9 for 3x3), `out_pixels` the height times width of the output map.
    """
    return out_pixels * out_channels * kernel_area * (in_channels // groups)


def linear_macs(*, in_features: int, out_features: int, rows: int = 1) -> int:
    """MACs of a linear layer applied to `rows` vectors."""
    return rows * in_features * out_features


def conv_params(*, in_channels: int, out_channels: int, kernel_area: int, groups: int = 1, bias: bool = False) -> int:
    """Weights of a convolution, and a bias for each output channel if it has one."""
    return out_channels * (in_channels // groups * kernel_area + bias)


def separable_ratio(*, out_channels: int, kernel_area: int) -> float:
    """What a depthwise separable convolution costs, as a share of the full one: 1 / C_out + 1 / K^2.

    Source: Howard et al. 2017, "MobileNets", section 3.1; for parameters without biases as for MACs.
    """
    return 1 / out_channels + 1 / kernel_area


def macs_per_value(macs: int, *, weights: int, values_in: int, values_out: int) -> float:
    """MACs for each number that a layer must at least move: its weights once, what it reads and what it writes.

    Where this is small, memory and not arithmetic sets the pace (Williams, Waterman & Patterson 2009, "Roofline").
    """
    return macs / (weights + values_in + values_out)
