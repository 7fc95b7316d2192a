"""Ledgers made by hand: rows that say no more than a drawing needs."""

from convatlas.records.ledger import IMAGE, Ledger, LedgerRow, Memory, Part, Window

SHAPE = (8, 16, 16)


def row(operation, inputs, *, name="", function=False, into=SHAPE, out=SHAPE, window=None, macs=0, params=0, settings=""):
    return LedgerRow(
        name=name or operation.lower(),
        operation=operation,
        function=function,
        settings=settings,
        window=window,
        inputs=tuple(inputs),
        input_shape=into,
        output_shape=out,
        formulas=(),
        params=params,
        macs=macs,
        activation_bytes=0,
        kept_bytes=0,
        receptive_field=None,
        least_field=None,
        start=None,
        jump=None,
    )


def window(kernel, *, stride=1, groups=1):
    return Window((kernel, kernel), (stride, stride), (kernel // 2,) * 2, (1, 1), groups)


def conv(inputs, *, name="conv", kernel=3, stride=1, groups=1, into=SHAPE, out=SHAPE):
    slid = window(kernel, stride=stride, groups=groups)
    return row("Conv2d", inputs, name=name, into=into, out=out, window=slid, macs=100, params=10)


def call(operation, inputs, *, name="", into=SHAPE, out=SHAPE, params=0):
    """A function that the `forward` of the module called `name` calls."""
    return LedgerRow(
        **{**vars(row(operation, inputs, into=into, out=out, params=params)), "name": name, "function": True}
    )  # fmt: skip


def ledger(rows, parts=(), *, model="net", shape=SHAPE):
    return Ledger(
        model=model,
        input_shape=shape,
        rows=tuple(rows),
        parts=tuple(Part(name, kind) for name, kind in parts),
        params=sum(each.params for each in rows),
        auxiliary_params=0,
        macs=sum(each.macs for each in rows),
        memory=Memory(0, 0, 0, 0, 0, 0),
        sees_all=None,
        hints=(),
        notes=(),
    )


def residual(name="block"):
    """Two convolutions with norm and ReLU, a shortcut around them, and a last ReLU."""
    return [
        conv([IMAGE], name=f"{name}.conv1"),
        row("BatchNorm2d", [0], name=f"{name}.norm1"),
        row("ReLU", [1], name=f"{name}.relu"),
        conv([2], name=f"{name}.conv2"),
        row("BatchNorm2d", [3], name=f"{name}.norm2"),
        call("add", [4, IMAGE], name=name),
        row("ReLU", [5], name=f"{name}.relu"),
    ]
