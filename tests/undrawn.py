"""Networks whose weights are not drawn: for tests that load others, or look at shapes alone. Drawing takes large ones seconds."""

from contextlib import contextmanager
from unittest import mock

from torch import nn

DRAWN = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]


@contextmanager
def undrawn():
    """Within the block nothing that `torch.nn.init` would fill is filled: weights are whatever the memory holds."""
    with mock.patch.multiple(nn.init, **{name: lambda tensor, *_, **__: tensor for name in DRAWN}):
        yield
