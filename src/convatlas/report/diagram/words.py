"""What a row of the ledger is called in a drawing, and what sort of operation it is."""

from dataclasses import dataclass
from enum import StrEnum
from math import prod

from convatlas.records.ledger import LedgerRow


class Sort(StrEnum):
    """Sorts of operation; the values are classes of the style sheet."""

    CONV = "conv"
    SEPARATE = "separate"
    LINEAR = "linear"
    POOL = "pool"
    POINTWISE = "pointwise"
    JOIN = "join"
    BLOCK = "block"
    OTHER = "other"
    IMAGE = "image"


LEGEND = {
    Sort.CONV: "convolution",
    Sort.SEPARATE: "depthwise or grouped convolution",
    Sort.LINEAR: "linear",
    Sort.POOL: "pooling",
    Sort.POINTWISE: "norm, activation",
    Sort.JOIN: "joined: + added, × multiplied",
    Sort.BLOCK: "a part, folded",
    Sort.OTHER: "other operation",
    Sort.IMAGE: "image",
}


@dataclass(frozen=True)
class Words:
    """What stands in a box: its heading, and the details that may stand on lines of their own."""

    heading: str
    details: tuple[str, ...] = ()


ACTIVATIONS = {
    **{"relu": "ReLU", "relu6": "ReLU6", "silu": "SiLU", "gelu": "GELU", "tanh": "tanh", "sigmoid": "sigmoid"},
    **{"softmax": "softmax", "hardswish": "hardswish", "hardsigmoid": "hardsigmoid", "hardtanh": "hardtanh", "elu": "ELU"},
    **{"leakyrelu": "leaky ReLU", "leaky_relu": "leaky ReLU", "prelu": "PReLU", "mish": "Mish", "softplus": "softplus"},
    **{"selu": "SELU", "celu": "CELU", "logsigmoid": "log sigmoid", "logsoftmax": "log softmax", "log_softmax": "log softmax"},
    **{"softsign": "softsign", "glu": "GLU", "threshold": "threshold"},
}
NORMS = {
    **{"localresponsenorm": "local response norm", "local_response_norm": "local response norm"},
    **{"layer_norm": "LayerNorm", "batch_norm": "BatchNorm", "group_norm": "GroupNorm", "instance_norm": "InstanceNorm"},
}
_TURNED = ("permute", "transpose", "swapaxes", "movedim", "t", "reshape", "reshape_as", "view", "view_as", "flatten", "unflatten")
_KEPT = ("contiguous", "unsqueeze", "squeeze", "expand", "identity", "clone", "detach", "alias", "to", "float", "type_as")
_CUT = ("chunk", "split", "split_with_sizes", "tensor_split", "unbind")
VIEWS = frozenset((*_TURNED, *_KEPT, *_CUT))
"""Functions that compute nothing. What cuts a map into pieces is among them: the pieces' shapes stand in what takes them."""
JOINS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "cat": "concatenate", "concat": "concatenate", "stack": "stack"}
MULTIPLIED = frozenset({"linear", "addmm", "matmul", "bmm", "mm", "einsum", "baddbmm", "bilinear"})


def function_of(row: LedgerRow) -> str:
    """The operation's name in lower case, without what torch decorates it with: `ReLU`, `relu_` and `aten.relu` are relu."""
    return row.operation.rpartition(".")[2].strip("_").lower()


def sort_of(row: LedgerRow) -> Sort | None:
    """What sort of operation a row is; None for one that computes nothing and is not drawn."""
    name = function_of(row)
    if name in VIEWS or "flatten" in name or ("drop" in name and row.settings == "rate 0"):
        return None
    if name.startswith("conv"):
        return Sort.SEPARATE if row.window is not None and row.window.groups > 1 else Sort.CONV
    if name in MULTIPLIED:
        return Sort.LINEAR
    if "pool" in name or is_average(row):
        return Sort.POOL
    if name in JOINS and len(set(row.inputs)) > 1:
        return Sort.JOIN
    if name in ACTIVATIONS or is_norm(row) or "drop" in name or name in JOINS:
        return Sort.POINTWISE
    return None if name in ("getitem", "slice") and row.input_shape == row.output_shape else Sort.OTHER


def is_norm(row: LedgerRow) -> bool:
    """Whether a row normalises."""
    return "norm" in function_of(row)


def is_average(row: LedgerRow) -> bool:
    """Whether a row takes the mean over all pixels."""
    return function_of(row) == "mean" and len(row.input_shape) == 3 and prod(row.output_shape) < prod(row.input_shape)


def words(row: LedgerRow) -> Words:
    """What is written of a row."""
    name, sort = function_of(row), sort_of(row)
    if sort in (Sort.CONV, Sort.SEPARATE):
        return _convolution(row)
    if sort is Sort.LINEAR:
        return Words("linear", (f"{row.input_shape[-1]}\u00a0→\u00a0{row.output_shape[-1]}",) if row.input_shape else ())
    if sort is Sort.POOL:
        return _pooling(row)
    if sort is Sort.JOIN:
        return Words(JOINS[name])
    if name in ACTIVATIONS:
        return Words(ACTIVATIONS[name])
    if is_norm(row):
        return Words(NORMS.get(name, row.operation.removesuffix("1d").removesuffix("2d").removesuffix("3d")))
    return _other(row, name)


def size(shape: tuple[int, ...]) -> str:
    """A shape as it is written: 64 × 56 × 56."""
    return "\u00a0×\u00a0".join(map(str, shape))


def _convolution(row: LedgerRow) -> Words:
    window = row.window
    turned = "transposed conv" if "transpose" in function_of(row) else "conv"
    channels = f"{row.input_shape[0]}\u00a0→\u00a0{row.output_shape[0]}"
    if window is None:
        return Words(turned, (channels,))
    depthwise = window.groups > 1 and window.groups == row.input_shape[0]
    details = [channels, *_stride(window.stride)]
    if window.groups > 1 and not depthwise:
        details.append(f"{window.groups}\u00a0groups")
    if set(window.dilation) - {1}:
        details.append(f"dilation\u00a0{_once(window.dilation)}")
    return Words(f"{_kernel(window.kernel)} {'depthwise' if depthwise else turned}", tuple(details))


def _pooling(row: LedgerRow) -> Words:
    name = function_of(row)
    kind = "max" if "max" in name else "average" if "avg" in name or "mean" in name else ""
    if row.window is None or "adaptive" in name or name == "mean":
        sides = row.output_shape[1:]
        if not sides or set(sides) == {1}:
            return Words(f"global {kind} pool".replace("  ", " "))
        return Words(f"{kind} pool".strip(), (f"to\u00a0{size(sides)}",))
    stride = _stride(row.window.stride) if row.window.stride != row.window.kernel else []  # a window beside the other
    return Words(f"{_kernel(row.window.kernel)} {kind} pool".replace("  ", " "), tuple(stride))


def _other(row: LedgerRow, name: str) -> Words:
    if name in JOINS:
        learned = "learned " if row.params else ""
        return Words(f"{learned}{'scale' if name in ('mul', 'div') else 'shift'}" if name != "cat" else "maps picked")
    if name in ("getitem", "slice"):
        return Words("slice", (f"to\u00a0{size(row.output_shape)}",))
    if "pad" in name:
        return Words("zero padding" if "zero" in name or name == "pad" else "padding", (f"to\u00a0{size(row.output_shape)}",))
    if "dropout" in name:
        return Words("dropout")
    return Words(row.operation.strip("_"))


def _stride(stride: tuple[int, ...]) -> list[str]:
    return [f"stride\u00a0{_once(stride)}"] if set(stride) - {1} else []


def _kernel(kernel: tuple[int, ...]) -> str:
    return "×".join(map(str, kernel))


def _once(values: tuple[int, ...]) -> str:
    """2 for (2, 2), 2×1 for (2, 1)."""
    return str(values[0]) if len(set(values)) == 1 else "×".join(map(str, values))
