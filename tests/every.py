"""Every variant of the atlas as the parameter of a test. The lines that it reaches are counted for the pocket members alone."""

from functools import cache

import pytest
import torch

from convatlas.inspection.ledger import ledger
from convatlas.models.registry import MODELS, create_model

VARIANTS = [name if name.endswith(".pocket") else pytest.param(name, marks=pytest.mark.untraced) for name in MODELS]
"""The members of a family are of the same blocks: what a large one reaches, its pocket member does, and tracing takes long."""


@cache
def ledger_of(name):
    """The ledger of a variant as it was published, made once for all tests that read it."""
    variant = MODELS[name]
    with torch.device("meta"):
        model = create_model(name, in_chans=variant.in_chans)
    return ledger(model, (variant.in_chans, variant.image_size, variant.image_size), name=name)
