"""Preprocessing for published weights: the order of steps and their rounding. Equality with torchvision's: tests/parity."""

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data.preprocessing import preprocess
from convatlas.errors import UserError
from convatlas.records.weights import Preprocessing

PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, resize=8, crop=8, interpolation="bicubic")


def test_resized_cut_and_normalised(tmp_path):
    image = np.zeros((16, 32, 3), dtype=np.uint8)
    image[:, 16:] = 255
    Image.fromarray(image).save(tmp_path / "x.png")
    x = preprocess(tmp_path / "x.png", PLAIN)
    assert (x.shape, x.dtype) == ((3, 8, 8), torch.float32)
    assert x[:, :, :3].max() < 0.1 and x[:, :, -3:].min() > 0.9
    how = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.25, 0.1), resize=8, crop=8, interpolation="bicubic")
    assert torch.allclose(preprocess(tmp_path / "x.png", how)[:, 0, -1], torch.tensor([1.0, 3.0, 10.0]), atol=1e-5)


def test_squeezed_pictures_keep_their_edges(tmp_path):
    image = np.zeros((8, 64, 3), dtype=np.uint8)
    image[:, :8] = 255
    Image.fromarray(image).save(tmp_path / "x.png")
    squeezed = preprocess(tmp_path / "x.png", Preprocessing((0.0,) * 3, (1.0,) * 3, None, 8, "bilinear"))
    assert squeezed[:, :, 0].min() > 0.8
    assert preprocess(tmp_path / "x.png", PLAIN).max() < 0.1


def test_one_channel_for_grey_weights(tmp_path):
    Image.new("RGB", (10, 10), "white").save(tmp_path / "x.png")
    assert preprocess(tmp_path / "x.png", Preprocessing((0.0,), (1.0,), 8, 8, "bilinear")).shape == (1, 8, 8)


def test_a_line_of_pixels_is_refused(tmp_path):
    Image.new("RGB", (5000, 1)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="5000x1 pixels, too narrow for its middle square"):
        preprocess(tmp_path / "x.png", PLAIN)


@pytest.mark.parametrize(
    "how",
    [
        None,
        Preprocessing((0.0,) * 2, (1.0,) * 2, 8, 8, "bicubic"),
        Preprocessing((0.0,) * 3, (1.0,) * 3, 8, 0, "bicubic"),
        Preprocessing((0.0,) * 3, (1.0,) * 3, -1, 8, "bicubic"),
        Preprocessing((0.0,) * 3, (1.0,) * 3, 8, 8, "spline"),
    ],
)
def test_what_is_no_preprocessing_is_refused(how, tmp_path):
    Image.new("RGB", (10, 10)).save(tmp_path / "x.png")
    with pytest.raises(UserError):
        preprocess(str(tmp_path / "x.png"), how)
