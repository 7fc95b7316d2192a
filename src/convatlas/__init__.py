"""ConvAtlas: a workbench for the landmark convolutional networks, LeNet-5 (1998) to ConvNeXt (2022).

The names below are the public ones. They are looked up on first use, so that importing the package (or a part of it that
needs no torch) stays fast.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "create_model": "convatlas.models.registry",
    "ledger": "convatlas.inspection.ledger",
    "list_models": "convatlas.models.registry",
    "load": "convatlas.transfer.loaded",
    "preprocess": "convatlas.data.preprocessing",
    "to_timm": "convatlas.models.pretrained",
    "to_torchvision": "convatlas.models.pretrained",
    "trace": "convatlas.inspection.trace",
    "Preprocessing": "convatlas.records.weights",
    "Study": "convatlas.study.plan_file",
    "UserError": "convatlas.errors",
}

__all__ = [
    "Preprocessing",
    "Study",
    "UserError",
    "create_model",
    "ledger",
    "list_models",
    "load",
    "preprocess",
    "to_timm",
    "to_torchvision",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'convatlas' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
