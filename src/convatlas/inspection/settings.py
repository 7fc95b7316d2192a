"""What a layer was set to, in words: `3x3 stride 2 padding 1 groups 32`. What is as torch has it by default is left out."""

from typing import Any

from torch import nn

from convatlas.layers.halved_conv import HalvedConv2d

AS_EVER = {"inplace=True", "inplace=False", "approximate='none'", "start_dim=1", "end_dim=-1"}


def settings(module: nn.Module) -> str:
    """The settings of a layer; empty for one that has none, such as an activation. Sizes of input and output are not named."""
    match module:
        case nn.Conv2d():
            words = _convolution(module)
        case nn.MaxPool2d() | nn.AvgPool2d():
            words = _pooling(module)
        case nn.AdaptiveAvgPool2d() | nn.AdaptiveMaxPool2d():
            words = [f"to {_side_by_side(module.output_size)}"]
        case nn.Linear():
            words = _without("bias", module.bias is None)
        case nn.BatchNorm2d() | nn.BatchNorm1d() | nn.BatchNorm3d():
            words = _unless(1e-5, "eps", module.eps) + _unless(0.1, "momentum", module.momentum)
            words += _without("scale", not module.affine) + _without("running statistics", not module.track_running_stats)
        case nn.LayerNorm():
            words = _unless(1e-5, "eps", module.eps) + _without("scale", not module.elementwise_affine)
        case nn.GroupNorm():
            words = [f"groups {module.num_groups}", *_unless(1e-5, "eps", module.eps), *_without("scale", not module.affine)]
        case nn.LocalResponseNorm():
            words = [f"size {module.size} alpha {module.alpha:g} beta {module.beta:g} k {module.k:g}"]
        case nn.Dropout() | nn.Dropout2d():
            words = [f"rate {module.p:g}"]
        case _:
            words = [part.replace("=", " ") for part in module.extra_repr().split(", ") if part not in AS_EVER]
    return " ".join(words)


def _convolution(conv: nn.Conv2d) -> list[str]:
    return [
        _side_by_side(conv.kernel_size),
        *_unless("1", "stride", _once(conv.stride)),
        *_unless("0", "padding", _once(conv.padding)),
        *_unless("1", "dilation", _once(conv.dilation)),
        *_unless(1, "groups", conv.groups),
        *_unless("zeros", "filled by", conv.padding_mode),
        *_without("bias", conv.bias is None),
        *_without("odd edges", isinstance(conv, HalvedConv2d)),
    ]


def _pooling(pool: nn.MaxPool2d | nn.AvgPool2d) -> list[str]:
    words = [
        _side_by_side(pool.kernel_size),
        *_unless("1", "stride", _once(pool.kernel_size if pool.stride is None else pool.stride)),
        *_unless("0", "padding", _once(pool.padding)),
    ]
    words += [] if isinstance(pool, nn.AvgPool2d) else _unless("1", "dilation", _once(pool.dilation))
    words += ["rounded up"] if pool.ceil_mode else []
    uncounted = isinstance(pool, nn.AvgPool2d) and not pool.count_include_pad and _once(pool.padding) != "0"
    return words + (["padding not counted"] if uncounted else [])


def _unless(usual: Any, word: str, value: Any) -> list[str]:
    """The setting, unless it is as usual."""
    return [] if value == usual else [f"{word} {value:g}" if isinstance(value, float) else f"{word} {value}"]


def _without(what: str, missing: bool) -> list[str]:
    return [f"no {what}"] if missing else []


def _side_by_side(value: Any) -> str:
    """3x3 for 3 and for (3, 3)."""
    return "x".join(str(each) for each in (value if isinstance(value, tuple) else (value, value)))


def _once(value: Any) -> str:
    """2 for 2 and for (2, 2), 2x1 for (2, 1), and words as they are."""
    if not isinstance(value, tuple):
        return str(value)
    return _side_by_side(value) if len(set(value)) > 1 else str(value[0])
