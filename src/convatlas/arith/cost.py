"""What a layer costs: parameters and multiply-accumulates (MACs). One MAC is two floating-point operations."""


def conv_macs(*, in_channels: int, out_channels: int, kernel_area: int, groups: int, out_pixels: int) -> int:
    """MACs of a convolution on one image: each output value is a sum over kernel_area * in_channels / groups products.

    `kernel_area` is the number of taps (9 for 3x3), `out_pixels` the height times width of the output map.
    """
    return out_pixels * out_channels * kernel_area * (in_channels // groups)


def linear_macs(*, in_features: int, out_features: int, rows: int = 1) -> int:
    """MACs of a linear layer applied to `rows` vectors."""
    return rows * in_features * out_features
