import pytest
import torch

from convatlas.data.augment import cutout, flip, normalise, shifted_crop


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def ramp(n=64, size=9):
    return (torch.arange(n * size * size) % 250 + 1).to(torch.uint8).view(n, 1, size, size).repeat(1, 3, 1, 1)


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_rest():
    images = ramp()
    flipped = flip(images, generator=gen())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, images, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(flipped, images, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 16 < sum(mirrored) < 48


def test_shifted_crop_is_padding_then_cropping_and_reaches_every_shift():
    images = ramp(400, 5)
    moved = shifted_crop(images, 1, generator=gen())
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    found = set()
    for image, frame in zip(moved, padded, strict=True):
        fits = [(y, x) for y in range(3) for x in range(3) if torch.equal(image, frame[:, y : y + 5, x : x + 5])]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) == 9


def test_cutout_blanks_one_square_and_nothing_else():
    images = torch.ones(200, 2, 9, 9)
    blanked = cutout(images, 3, generator=gen())
    holes = blanked[:, 0] == 0
    assert torch.equal(blanked[:, 0], blanked[:, 1])
    for hole in holes:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        # Two or three pixels: a centre on the border leaves part of the square outside.
        assert len(rows) in (2, 3)
        assert len(columns) in (2, 3)
        assert int(hole.sum()) == len(rows) * len(columns)
    assert int(images.sum()) == images.numel()
    assert len({tuple(hole.flatten().tolist()) for hole in holes}) > 50


@pytest.mark.parametrize("function", [shifted_crop, cutout])
def test_an_extent_of_zero_does_nothing(function):
    images = ramp()
    assert torch.equal(function(images, 0, generator=gen()), images)


def test_augmentation_is_a_function_of_the_generator():
    images = ramp()

    def both(seed):
        generator = gen(seed)
        return shifted_crop(flip(images, generator=generator), 2, generator=generator)

    assert torch.equal(both(1), both(1))
    assert not torch.equal(both(1), both(2))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_normalise_agrees_with_the_formula(dtype, tolerance, memory_format):
    images = ramp()
    values = normalise(images, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4), dtype=dtype, memory_format=memory_format)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in ((0.1, 0.5, 0.9), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(values.double(), (images / 255.0 - mean) / std, rtol=tolerance, atol=tolerance)
    assert values.dtype == dtype
    assert values.is_contiguous(memory_format=memory_format)
