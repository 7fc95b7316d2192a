"""Our networks give the other libraries' outputs with the other libraries' weights: every variant that they have."""

from functools import partial

import pytest
import torch
from torch import nn

from convatlas.layers.network import Request
from convatlas.models.efficientnet import V2, EfficientNet, EfficientNetConfig, FusedMBConv, MBConv, Row
from convatlas.models.loading import load
from convatlas.models.registry import MODELS, create_model
from tests.kept_memory import kept_memory
from tests.parity.comparing import IN_FLOAT64, PAIRS, REBUILT, Computed, compare, computed, draw, far
from tests.parity.reference_libraries import timm, torchvision

pytestmark = pytest.mark.untraced  # long computations, whose lines other tests reach


@pytest.fixture(scope="module", autouse=True)
def networks_one_after_another():
    """They take the memory that the one before gave back; the last is let go at the end."""
    with kept_memory():
        yield
        computed.cache_clear()


@pytest.mark.parametrize(("name", "library"), PAIRS)
def test_same_outputs_gradients_and_statistics(name, library):
    difference = compare(name, library)
    assert difference.largest <= difference.allowed, difference


def test_every_variant_that_they_have_is_compared():
    compared = {name for name, _ in PAIRS}
    assert len(compared) >= 40
    theirs = set(torchvision.models.list_models(module=torchvision.models)) | set(timm.list_models())
    assert set(MODELS) & theirs == {name for name, library in PAIRS if library != REBUILT}
    blocks = {type(module).__name__ for name in IN_FLOAT64 for module in parts(name)}
    everywhere = {type(module).__name__ for name in compared for module in parts(name)}
    fused = {"FusedMBConv"}  # compared below
    assert everywhere <= blocks | fused, "a block that no network compared in float64 has"


def parts(name):
    with torch.device("meta"):
        return list(create_model(name).modules())[1:]


def test_fused_blocks_in_float64():
    """In a small network of EfficientNetV2's kind: the depthwise convolutions of a published one take minutes in float64."""
    module = torchvision.models.efficientnet
    settings = [
        module.FusedMBConvConfig(1, 3, 1, 16, 16, 2),
        module.FusedMBConvConfig(4, 3, 2, 16, 24, 2),
        module.MBConvConfig(4, 3, 2, 24, 32, 2),
    ]
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    theirs = module.EfficientNet(settings, dropout=0.0, stochastic_depth_prob=0.0, norm_layer=norm, last_channel=64)
    rows = (
        Row(FusedMBConv, expansion=1, kernel=3, stride=1, width=16, depth=2),
        Row(FusedMBConv, expansion=4, kernel=3, stride=2, width=24, depth=2),
        Row(MBConv, expansion=4, kernel=3, stride=2, width=32, depth=2),
    )
    config = EfficientNetConfig(stem=16, stages=rows, head=64, dropout=0.0, drop_path=0.0, conv=V2)
    ours = EfficientNet(config, Request(num_classes=1000, in_chans=3, image_size=224))
    mine = Computed(ours.double(), torch.randn(2, 3, 48, 48).double())
    difference = mine.apart(theirs.double(), "efficientnet", "torchvision")
    assert difference.largest < 1e-9


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
