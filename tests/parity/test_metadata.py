"""Parameters and MACs as torchvision publishes them with its weights, for every variant that it has."""

import pytest
import torch

from convatlas.inspection.trace import trace
from convatlas.models.registry import MODELS, create_model
from tests.parity.reference_libraries import torchvision

NAMES = [name for name in MODELS if name in torchvision.models.list_models(module=torchvision.models)]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_macs_are_those_that_torchvision_publishes(name):
    weights = torchvision.models.get_model_weights(name)
    with torch.device("meta"):
        model = create_model(name)
    for entry in weights:
        if "num_params" not in entry.meta or entry.name == "IMAGENET1K_FEATURES":
            continue
        size = entry.transforms().crop_size[0]
        record = trace(model, (3, size, size))
        assert record.params == entry.meta["num_params"]
        assert round(record.macs / 1e9, 3) == pytest.approx(entry.meta["_ops"], abs=0.00051)


def test_all_of_them_are_there():
    assert len(NAMES) == 38
