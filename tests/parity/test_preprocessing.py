"""Our preprocessing gives torchvision's tensors, for every kind of setting that published weights have."""

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data.preprocessing import preprocess
from convatlas.models.published import published
from tests.parity.reference_libraries import torchvision

SETTINGS = sorted({row.preprocessing for row in published() if row.source == "torchvision"}, key=repr)


@pytest.mark.parametrize("size", [(500, 375), (301, 640), (64, 64)])
@pytest.mark.parametrize("how", SETTINGS)
def test_same_tensor_as_torchvisions(how, size, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    image.save(tmp_path / "x.png")
    theirs = torchvision.transforms._presets.ImageClassification(
        crop_size=how.crop,
        resize_size=how.resize,
        mean=how.mean,
        std=how.std,
        interpolation=torchvision.transforms.InterpolationMode(how.interpolation),
    )
    torch.testing.assert_close(preprocess(tmp_path / "x.png", how), theirs(image), rtol=0, atol=1e-5)
