import pytest
from torch import nn

from convatlas.inspection.settings import settings
from convatlas.layers.drop_path import DropPath

SETTINGS = [
    (nn.Conv2d(64, 64, 3, stride=2, padding=1, groups=32), "3x3 stride 2 padding 1 groups 32"),
    (nn.Conv2d(3, 8, (1, 7), stride=(2, 1), padding=(0, 3), bias=False), "1x7 stride 2x1 padding 0x3 no bias"),
    (nn.Conv2d(3, 8, 3, padding="same", dilation=2, padding_mode="reflect"), "3x3 padding same dilation 2 filled by reflect"),
    (nn.Conv2d(3, 8, 1), "1x1"),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), "3x3 stride 2 padding 1 rounded up"),
    (nn.MaxPool2d(2), "2x2 stride 2"),
    (nn.MaxPool2d(3, 1, dilation=2), "3x3 dilation 2"),
    (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "3x3 padding 1 padding not counted"),
    (nn.AvgPool2d((2, 3)), "2x3 stride 2x3"),
    (nn.AdaptiveAvgPool2d(7), "to 7x7"),
    (nn.AdaptiveMaxPool2d((1, 2)), "to 1x2"),
    (nn.Linear(4, 2), ""),
    (nn.Linear(4, 2, bias=False), "no bias"),
    (nn.BatchNorm2d(4), ""),
    (nn.BatchNorm2d(4, eps=1e-3, momentum=0.01), "eps 0.001 momentum 0.01"),
    (nn.BatchNorm2d(4, affine=False, track_running_stats=False), "no scale no running statistics"),
    (nn.LayerNorm(4, eps=1e-6), "eps 1e-06"),
    (nn.GroupNorm(2, 4), "groups 2"),
    (nn.LocalResponseNorm(5, alpha=1e-4, k=2), "size 5 alpha 0.0001 beta 0.75 k 2"),
    (nn.Dropout(0.4), "rate 0.4"),
    (DropPath(0.1), "rate 0.1"),
    (nn.ReLU(inplace=True), ""),
    (nn.GELU(), ""),
    (nn.GELU("tanh"), "approximate 'tanh'"),
    (nn.LeakyReLU(0.2), "negative_slope 0.2"),
    (nn.Flatten(), ""),
    (nn.Flatten(2), "start_dim 2"),
    (nn.Identity(), ""),
    (nn.Upsample(scale_factor=2), "scale_factor 2.0 mode 'nearest'"),
]


@pytest.mark.parametrize(
    ("module", "words"), SETTINGS, ids=lambda value: value if isinstance(value, str) else type(value).__name__
)
def test_settings(module, words):
    assert settings(module) == words
