"""The libraries that ours is compared with: `from tests.parity.reference_libraries import timm, torchvision`.

A torchvision built for another build of torch (CUDA's, say) cannot load its own operators, and then cannot be imported: it
describes two of them that are not there. Only detection needs these two, so they are declared, and nothing more.
"""

import importlib.util
from pathlib import Path

import torch


def _declare_missing_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None and spec.origin is not None, "torchvision is not installed: scripts/install test"
    try:
        for library in Path(spec.origin).parent.glob("_C.*"):
            torch.ops.load_library(library)
    except OSError:
        torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_declare_missing_operators()

import timm  # noqa: E402
import torchvision  # noqa: E402

__all__ = ["timm", "torchvision"]
