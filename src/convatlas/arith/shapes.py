"""How large a map is after a convolution or a pooling (Dumoulin & Visin 2016, "A guide to convolution arithmetic", section 2)."""


def effective_kernel(kernel: int, dilation: int = 1) -> int:
    """Pixels that a kernel spans, counting the holes that dilation leaves between its taps."""
    return dilation * (kernel - 1) + 1


def conv_output_size(size: int, *, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Pixels along one axis after a convolution: floor((size + 2 * padding - span) / stride) + 1.

    The span is dilation * (kernel - 1) + 1. `size`, `kernel` and `padding` are in pixels, `stride` and `dilation` in steps.
    A result below 1 means that the kernel does not fit.
    """
    return (size + 2 * padding - effective_kernel(kernel, dilation)) // stride + 1


def pool_output_size(size: int, *, kernel: int, stride: int, padding: int = 0, dilation: int = 1, ceil_mode: bool = False) -> int:
    """Pixels along one axis after a pooling. `ceil_mode` rounds up, unless the last window would begin in the padding.

    Without `ceil_mode` this is `conv_output_size`.
    """
    if not ceil_mode:
        return conv_output_size(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    room = size + 2 * padding - effective_kernel(kernel, dilation)
    windows = -(-room // stride) + 1
    last_begins_outside = (windows - 1) * stride >= size + padding
    return windows - 1 if last_begins_outside else windows


def size_formula(size: int, *, kernel: int, stride: int, padding: int, dilation: int = 1, ceil_mode: bool = False) -> str:
    """The output-size formula with the numbers filled in, such as `floor((224 - 7 + 2*3) / 2) + 1 = 112`.

    It says `ceil` only where rounding up made a difference.
    """
    result = pool_output_size(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode)
    rounded_up = ceil_mode and result > conv_output_size(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    span = f"{dilation}*({kernel} - 1) - 1" if dilation > 1 else f"{kernel}"
    return f"{'ceil' if rounded_up else 'floor'}(({size} - {span} + 2*{padding}) / {stride}) + 1 = {result}"


def transposed_output_size(
    size: int, *, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, output_padding: int = 0
) -> int:
    """Pixels along one axis after a transposed convolution: (size - 1) * stride - 2 * padding + span + output_padding.

    It undoes the sizes of a convolution (Dumoulin & Visin 2016, section 4). A result below 1 means that nothing is left.
    """
    return (size - 1) * stride - 2 * padding + effective_kernel(kernel, dilation) + output_padding


def transposed_size_formula(
    size: int, *, kernel: int, stride: int, padding: int, dilation: int = 1, output_padding: int = 0
) -> str:
    """The same with the numbers filled in, such as `(16 - 1) * 2 - 2*1 + 4 = 32`."""
    window = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation, "output_padding": output_padding}
    span = f"{dilation}*({kernel} - 1) + 1" if dilation > 1 else f"{kernel}"
    more = f" + {output_padding}" if output_padding else ""
    return f"({size} - 1) * {stride} - 2*{padding} + {span}{more} = {transposed_output_size(size, **window)}"


def same_padding(size: int, *, kernel: int, stride: int = 1, dilation: int = 1) -> int | None:
    """The least padding, on both sides alike, with which a convolution gives ceil(size / stride) pixels; None if there is none.

    With a stride of 1 this keeps the size: half of the span, rounded down, which an even span does not have ("half" and "same"
    padding in Dumoulin & Visin 2016, section 2.2.1).
    """
    wanted = -(-size // stride)
    least = stride * (wanted - 1) + effective_kernel(kernel, dilation) - size
    padding = max(0, -(-least // 2))
    found = conv_output_size(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    return padding if found == wanted else None


def least_size(*, kernel: int, padding: int = 0, dilation: int = 1) -> int:
    """The fewest pixels along one axis into which a window fits once."""
    return max(1, effective_kernel(kernel, dilation) - 2 * padding)


def pixels_read(size: int, *, outputs: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> bytes:
    """For each pixel of an axis, 1 if one of `outputs` windows reads it, else 0.

    Output i reads i * stride - padding + k * dilation, where k runs over the taps, from 0 up to, but not including, `kernel`.
    """
    read = bytearray(size)
    # Windows times taps is large for large maps: the fewer are gone through one by one, the many marked at once.
    (few, far), (many, step) = sorted([(outputs, stride), (kernel, dilation)])
    for i in range(few):
        first = i * far - padding
        skipped = max(0, -(first // step))
        taken = min(many, -((first - size) // step)) - skipped
        if taken > 0:
            begin = first + skipped * step
            read[begin : begin + (taken - 1) * step + 1 : step] = b"\1" * taken
    return bytes(read)


def unread(read: bytes) -> tuple[int, int, int]:
    """How many pixels no window reads, of those that `pixels_read` gives: at the start, between others, at the end."""
    rest = read.lstrip(b"\0")
    inner = rest.rstrip(b"\0")
    return len(read) - len(rest), inner.count(0), len(rest) - len(inner)


def padding_only(size: int, *, outputs: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many of `outputs` windows have no tap on a pixel of the axis."""
    reaches = 0
    for i in range(outputs):
        first = i * stride - padding
        lowest, highest = max(0, -(first // dilation)), min(kernel - 1, (size - 1 - first) // dilation)
        reaches += lowest <= highest
    return outputs - reaches
