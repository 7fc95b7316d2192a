from math import prod

import pytest
import torch

from convatlas.data.augment import blank, draw, mirror_, normalise, shifted_crop

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def drawn(n, size, *, flip=False, crop=0, cutout=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return draw(n, size=(size, size), flip=flip, crop=crop, cutout=cutout, generator=generator)


def ramp(n=64, size=9):
    return (torch.arange(n * size * size) % 250 + 1).to(torch.uint8).view(n, 1, size, size).repeat(1, 3, 1, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_those_drawn_are_mirrored_about_half_of_them_and_the_rest_left(layout):
    images = ramp()
    mirrored = drawn(64, 9, flip=True).mirrored
    flipped = mirror_(images.clone(memory_format=layout), mirrored)
    for before, after, turned in zip(images, flipped, mirrored, strict=True):
        assert torch.equal(after, before.flip(2) if turned else before)
    assert 16 < int(mirrored.sum()) < 48
    assert flipped.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("fill", "mode"), [("zeros", "constant"), ("reflect", "reflect")])
def test_shifted_crop_is_padding_then_cropping_as_drawn_and_reaches_every_shift(layout, fill, mode):
    images = ramp(400, 5)
    shift = drawn(400, 5, crop=2).shift
    moved = shifted_crop(images.contiguous(memory_format=layout), 2, shift=shift, fill=fill)
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode=mode).to(torch.uint8)
    for image, frame, y, x in zip(moved, padded, *shift.tolist(), strict=True):
        assert torch.equal(image, frame[:, y : y + 5, x : x + 5])
    assert {tuple(pair) for pair in shift.T.tolist()} == {(y, x) for y in range(5) for x in range(5)}
    assert moved.is_contiguous(memory_format=layout)


def test_shifted_crop_leaves_its_images_alone_and_may_have_no_padding():
    images = ramp()
    before = images.clone()
    shifted_crop(images, 3, shift=drawn(64, 9, crop=3).shift)
    assert torch.equal(images, before)
    assert torch.equal(shifted_crop(images, 0, shift=torch.zeros(2, 64, dtype=torch.int64)), before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blank_zeroes_one_square_and_nothing_else(layout):
    images = torch.ones(200, 2, 9, 9).contiguous(memory_format=layout)
    blanked = blank(images, 3, centre=drawn(200, 9, cutout=3).centre)
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
    assert blanked.is_contiguous(memory_format=layout)


def test_draws_are_a_function_of_the_generator_and_none_is_made_of_what_is_left_out():
    first, again, other = (drawn(64, 9, flip=True, crop=2, cutout=3, seed=seed) for seed in (1, 1, 2))
    for name in ("mirrored", "shift", "centre"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    nothing = drawn(64, 9)
    assert (nothing.mirrored, nothing.shift, nothing.centre) == (None, None, None)
    assert torch.equal(drawn(64, 9, crop=2, seed=1).shift, drawn(64, 9, crop=2, cutout=3, seed=1).shift)


def test_a_part_of_the_draws_is_of_those_images():
    whole = drawn(10, 9, flip=True, crop=2)
    part = whole.part(3, 7)
    assert torch.equal(part.mirrored, whole.mirrored[3:7])
    assert torch.equal(part.shift, whole.shift[:, 3:7])
    assert part.centre is None


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_normalise_agrees_with_the_formula(dtype, tolerance, memory_format):
    images = ramp()
    values = normalise(images, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4), dtype=dtype, memory_format=memory_format)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in ((0.1, 0.5, 0.9), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(values.double(), (images / 255.0 - mean) / std, rtol=tolerance, atol=tolerance)
    assert values.dtype == dtype
    assert values.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("cut", [lambda x: x[1:], lambda x: x[:, :1], lambda x: x[::8][:1], lambda x: x[:0]])
@pytest.mark.parametrize("sides", [(3, 5, 5), (1, 8, 8), (2, 2, 2), (1, 1, 4)])
def test_parts_of_a_batch_are_mirrored_wherever_they_lie(cut, sides):
    """Words of eight bytes are copied where images are made of whole ones."""
    inside = torch.randint(256, (9 * prod(sides) + 3,), dtype=torch.uint8)[3:].view(9, *sides)
    for images in (torch.randint(256, (9, *sides), dtype=torch.uint8), inside, torch.randn(9, *sides)):
        part = cut(images)
        turned = torch.arange(len(part)) % 2 == 0
        expected = torch.where(turned[:, None, None, None], part.flip(3), part)
        assert torch.equal(mirror_(part, turned), expected)
        assert torch.equal(part, expected)
