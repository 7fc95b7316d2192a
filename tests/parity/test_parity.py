"""Our networks give the other libraries' outputs with the other libraries' weights: every variant that they have."""

import pytest
import torch
from torch import nn

from convatlas.models.loading import load
from convatlas.models.registry import MODELS, create_model
from tests.parity.comparing import IN_FLOAT64, PAIRS, compare, draw, far
from tests.parity.reference_libraries import timm, torchvision


@pytest.mark.parametrize(("name", "library"), PAIRS)
def test_same_outputs_gradients_and_statistics(name, library):
    difference = compare(name, library)
    assert difference.largest <= difference.allowed, difference


def test_every_variant_that_they_have_is_compared():
    compared = {name for name, _ in PAIRS}
    assert len(compared) >= 40
    theirs = set(torchvision.models.list_models(module=torchvision.models)) | set(timm.list_models())
    assert (set(MODELS) & theirs) == compared - {"efficientnet_lite0"} | (set(MODELS) & {"efficientnet_lite0"})
    blocks = {type(module).__name__ for name in IN_FLOAT64 for module in create_on_meta(name).modules()}
    everywhere = {type(module).__name__ for name in compared for module in create_on_meta(name).modules()}
    assert everywhere <= blocks, "a block that no network compared in float64 has"


def create_on_meta(name):
    with torch.device("meta"):
        return create_model(name, in_chans=MODELS[name].in_chans)


def test_the_test_sees_a_wrong_network():
    """What it is for: statistics that are not loaded, another stride, a missing ReLU must not pass."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).double().eval()
    draw(theirs)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for spoil in (_forget_statistics, _stride_first, _lose_relu):
        ours = create_model("resnet50").double().eval()
        load(ours, theirs.state_dict(), where="reference", name="resnet50", classes_chosen=False)
        with torch.no_grad():
            assert far(ours(x), theirs(x)) < 1e-9
            spoil(ours)
            assert far(ours(x), theirs(x)) > 1e-3


def _forget_statistics(model):
    model.stages[2][1].conv2.norm.reset_running_stats()


def _stride_first(model):
    block = model.stages[1][0]
    block.conv1.conv.stride, block.conv2.conv.stride = (2, 2), (1, 1)


def _lose_relu(model):
    model.stages[3][2].relu = nn.Identity()


def test_densenet_bc_is_torchvisions_parts_put_together_for_small_images():
    theirs = torchvision.models.DenseNet(12, (16, 16, 16), num_init_features=24, num_classes=10)
    theirs.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    for name in ("norm0", "relu0", "pool0"):
        setattr(theirs.features, name, nn.Identity())
    theirs, ours = theirs.double().eval(), create_model("densenet_bc_100_12").double().eval()
    draw(theirs)
    load(ours, theirs.state_dict(), where="reference", name="densenet_bc_100_12", classes_chosen=False)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert far(ours(x), theirs(x)) < 1e-9


def test_googlenets_published_preprocessing_stands_for_the_layer_that_ours_has_not():
    """torchvision's weights turn the input of ImageNet's mean and deviation into one of 0.5 and 0.5, within the network."""
    from convatlas.models.published import find_weights

    how = find_weights("googlenet", "torchvision").preprocessing
    theirs = torchvision.models.googlenet(weights=None, transform_input=True, init_weights=False).double().eval()
    ours = create_model("googlenet").double().eval()
    draw(theirs)
    load(ours, theirs.state_dict(), where="reference", name="googlenet", classes_chosen=False)
    x = torch.rand(2, 3, 96, 96, dtype=torch.float64)
    theirs_how = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.transforms()

    def normalised(mean, std):
        return (x - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)

    with torch.no_grad():
        assert far(ours(normalised(how.mean, how.std)), theirs(normalised(theirs_how.mean, theirs_how.std))) < 1e-6
