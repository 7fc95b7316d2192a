"""Every variant of the atlas as the parameter of a test. The lines that it reaches are counted for the pocket members alone."""

import pytest

from convatlas.models.registry import MODELS

VARIANTS = [name if name.endswith(".pocket") else pytest.param(name, marks=pytest.mark.untraced) for name in MODELS]
"""The members of a family are of the same blocks: what a large one reaches, its pocket member does, and tracing takes long."""
