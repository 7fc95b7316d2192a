"""Convolution as the textbook writes it: sums of products in plain Python. Slow, and plain enough to be believed.

Goodfellow, Bengio & Courville 2016, "Deep Learning", section 9.1. Equation (9.4) is the convolution of an image I with a
kernel K, S(i, j) = sum over m and n of I(m, n) K(i - m, j - n), which turns the kernel round. What networks compute and call
convolution is equation (9.6), the cross-correlation S(i, j) = sum over m and n of I(i + m, j + n) K(m, n), which does not.
Since the kernel is learnt, the two can do the same. Stride, padding and dilation: Dumoulin & Visin 2016, "A guide to
convolution arithmetic for deep learning", sections 2 and 5.1.
"""

from collections.abc import Sequence

from convatlas.arith.shapes import conv_output_size, effective_kernel
from convatlas.errors import UserError

Map = Sequence[Sequence[float]]
"""Rows of numbers, all of one length."""
Pair = tuple[int, int]
"""Along rows, along columns."""


def cross_correlate(
    image: Map, kernel: Map, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> list[list[float]]:
    """Equation (9.6): `image` (H, W) and `kernel` (KH, KW) give a map (OH, OW). Pixels of the padding are zero.

    Raises UserError for what is no map, and for a kernel that does not fit into the padded image.
    """
    height, width = _size(image, "the image")
    rows, columns = _size(kernel, "the kernel")
    out_height = _output("rows", height, rows, stride[0], padding[0], dilation[0])
    out_width = _output("columns", width, columns, stride[1], padding[1], dilation[1])

    def pixel(i: int, j: int) -> float:
        return image[i][j] if 0 <= i < height and 0 <= j < width else 0.0

    def value(i: int, j: int) -> float:
        top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
        return sum(
            (pixel(top + m * dilation[0], left + n * dilation[1]) * kernel[m][n] for m in range(rows) for n in range(columns)),
            0.0,
        )

    return [[value(i, j) for j in range(out_width)] for i in range(out_height)]


def convolve(
    image: Map, kernel: Map, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> list[list[float]]:
    """Equation (9.4), where the kernel lies within the padded image: the cross-correlation with the kernel turned round.

    Sizes and errors are those of `cross_correlate`.
    """
    turned = [list(reversed(row)) for row in reversed(kernel)]
    return cross_correlate(image, turned, stride=stride, padding=padding, dilation=dilation)


def conv2d(
    image: Sequence[Map],
    weight: Sequence[Sequence[Map]],
    *,
    bias: Sequence[float] | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> list[list[list[float]]]:
    """A convolutional layer on one image (C, H, W), with `weight` (out, C / groups, KH, KW) and `bias` (out,).

    Equation (9.7), of section 9.5: each output map is the sum of the cross-correlations of the maps in its group, plus its
    bias. Groups: Krizhevsky, Sutskever & Hinton 2012, section 3.5. Raises UserError where the shapes do not fit together.
    """
    _check_layer(image, weight, bias, groups)
    inputs, outputs = len(image) // groups, len(weight) // groups
    maps = []
    for k, kernels in enumerate(weight):
        first = k // outputs * inputs
        parts = [
            cross_correlate(image[first + c], kernels[c], stride=stride, padding=padding, dilation=dilation)
            for c in range(inputs)
        ]
        offset = 0.0 if bias is None else bias[k]
        maps.append([[sum(values, offset) for values in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)])
    return maps


def _check_layer(image: Sequence[Map], weight: Sequence[Sequence[Map]], bias: Sequence[float] | None, groups: int) -> None:
    if not image or not weight:
        raise UserError("the image or the weight has no channel", fix="Give at least one of each.")
    if groups < 1 or len(image) % groups or len(weight) % groups:
        raise UserError(
            f"{groups} groups do not divide {len(image)} input and {len(weight)} output channels",
            fix="Give a number of groups that divides both.",
        )
    wanted = len(image) // groups
    given = {len(kernels) for kernels in weight}
    if given != {wanted}:
        raise UserError(f"kernels have {_listed(given)} maps, and a group has {wanted}", fix="Give each kernel a map a channel.")
    if len({_size(map_, "a channel") for map_ in image}) > 1:
        raise UserError("the channels of the image are not of one size", fix="Give maps of one size.")
    if len({_size(kernel, "a kernel") for kernels in weight for kernel in kernels}) > 1:
        raise UserError("the kernels are not of one size", fix="Give kernels of one size.")
    if bias is not None and len(bias) != len(weight):
        raise UserError(f"there are {len(bias)} biases for {len(weight)} output channels", fix="Give one a channel.")


def _listed(numbers: set[int]) -> str:
    return " or ".join(map(str, sorted(numbers)))


def _size(rows: Map, what: str) -> Pair:
    """Height and width of a map."""
    widths = {len(row) for row in rows}
    if len(widths) != 1 or 0 in widths:
        raise UserError(f"{what} is no map of numbers", fix="Give at least one row, all of one length and not empty.")
    return len(rows), widths.pop()


def _output(side: str, size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Output size along one side. Raises UserError where nothing would come out."""
    if stride < 1 or dilation < 1 or padding < 0:
        raise UserError(
            f"along the {side} stride is {stride}, dilation {dilation}, padding {padding}",
            fix="Stride and dilation are 1 or more, padding is 0 or more.",
        )
    result = conv_output_size(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    if result < 1:
        raise UserError(
            f"the kernel covers {effective_kernel(kernel, dilation)} {side}, and the padded image has {size + 2 * padding}",
            fix="Give a larger image, more padding or a smaller kernel.",
        )
    return result
