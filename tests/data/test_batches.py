import gc
import hashlib
import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F

from convatlas.data import batches
from convatlas.data.batches import scaled, training_batches
from convatlas.data.dataset import ImageSet
from convatlas.data.mixing import Mixing
from convatlas.data.operating import operate
from convatlas.errors import UserError

LAYOUTS = [torch.contiguous_format, torch.channels_last]
# With these the normalised values are the pixels, exactly.
AS_THEY_ARE = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}


def patterned(n=70, channels=3, size=12):
    pixels = (torch.arange(n * channels * size * size) * 2654435761 >> 7) % 256
    return ImageSet(pixels.to(torch.uint8).view(n, channels, size, size), torch.arange(n))


def epoch(images, *, number=0, **changes):
    settings = {
        "batch_size": 16,
        "seed": 5,
        "flip": True,
        "crop": 3,
        "cutout": 0,
        "dtype": torch.float32,
        "memory_format": torch.channels_last,
        "device": "cpu",
    }
    return training_batches(images, epoch=number, **(settings | AS_THEY_ARE | changes))


def same(first, second):
    pairs = itertools.zip_longest(first, second)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize(
    ("changes", "pinned"),
    [
        ({}, "1d00a84304cb4f44"),
        ({"flip": False}, "58f540d9f4897fdb"),
        ({"crop": 0}, "d2612d90f84288a9"),
        ({"cutout": 5}, "5d65b0f9ba70878c"),
        ({"flip": False, "crop": 0}, "d0126678f76e5d90"),
        ({"dtype": torch.bfloat16, "seed": 11}, "4988fb2910306f3a"),
    ],
)
def test_batches_are_those_of_every_version_before(changes, pinned, memory_format):
    """Runs of another version can be gone on with, and repeated, only as long as these do not change."""
    digest = hashlib.sha256()
    for number in (0, 3):
        for x, y in epoch(patterned(), number=number, memory_format=memory_format, **changes):
            assert x.is_contiguous(memory_format=memory_format)
            digest.update(x.to(torch.uint8).contiguous().numpy().tobytes())
            digest.update(y.numpy().tobytes())
    assert digest.hexdigest()[:16] == pinned


@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_both_memory_formats_hold_the_same_values(channels, memory_format):
    images = patterned(channels=channels)
    how = {"mean": (0.3,) * channels, "std": (0.2,) * channels, "cutout": 4, "crop_fill": "reflect"}
    assert same(epoch(images, **how), epoch(images, memory_format=memory_format, **how))


def by_label(batches_of_epoch):
    return {int(label): x for batch, labels in batches_of_epoch for x, label in zip(batch, labels, strict=True)}


def test_alternating_flips_mirror_each_image_in_every_second_epoch():
    images = patterned(64)
    shown = [by_label(epoch(images, number=n, crop=0, flip_rule="alternating")) for n in range(4)]
    for label, image in enumerate(images.images.float()):
        seen = [torch.equal(x[label], image.flip(2)) for x in shown]
        assert all(mirrored or torch.equal(x[label], image) for x, mirrored in zip(shown, seen, strict=True))
        assert seen in ([True, False, True, False], [False, True, False, True])
    first = sum(torch.equal(shown[0][label], image.flip(2)) for label, image in enumerate(images.images.float()))
    assert 16 < first < 48


def test_the_coins_of_alternating_flips_depend_on_the_seed_and_the_flip_may_be_left_out():
    images = patterned(64)
    how = {"crop": 0, "flip_rule": "alternating"}
    first, other = (by_label(epoch(images, seed=seed, **how)) for seed in (1, 2))
    assert any(not torch.equal(first[label], other[label]) for label in first)
    plain = by_label(epoch(images, flip=False, **how))
    assert all(torch.equal(plain[label], images.images[label].float()) for label in plain)


def test_a_reflecting_crop_moves_in_the_image_mirrored_at_its_border():
    images = patterned(64)
    shown = by_label(epoch(images, flip=False, crop_fill="reflect"))
    frames = F.pad(images.images.float(), (3, 3, 3, 3), mode="reflect")
    for label, x in shown.items():
        windows = frames[label].unfold(1, 12, 1).unfold(2, 12, 1)
        assert any(torch.equal(x, windows[:, dy, dx]) for dy in range(7) for dx in range(7))


@pytest.mark.parametrize(("size", "crop"), [(8, 2), (20, 0)])
def test_images_are_scaled_before_they_are_augmented(size, crop):
    images = patterned()
    small = ImageSet(scaled(images.images, size, mode="bilinear"), images.labels)
    assert same(epoch(images, size=size, crop=crop), epoch(small, crop=crop))
    direct = F.interpolate(images.images.double(), size=(size, size), mode="bilinear", antialias=True)
    assert (small.images - direct).abs().max() <= 0.51


def test_the_size_that_images_have_changes_nothing():
    images = patterned()
    assert same(epoch(images, size=12), epoch(images))


def test_scaling_is_done_once_for_many_epochs_and_anew_for_another_size(monkeypatch):
    calls = []
    monkeypatch.setattr(batches, "scaled", lambda *call, **how: calls.append(call[1]) or scaled(*call, **how))
    images = patterned()
    for size in (8, 8, 8, 10):
        list(epoch(images, size=size))
    assert calls == [8, 10]


def test_what_is_kept_of_a_set_goes_with_it():
    images = patterned()
    list(epoch(images, size=8))
    kept = weakref.ref(batches._PREPARED[images.images][1])
    list(epoch(patterned(), memory_format=torch.contiguous_format))
    del images
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("limit", ["_COPIED_BYTES", "_ON_DEVICE_BYTES"])
def test_a_set_too_large_to_be_copied_gives_the_same_batches(monkeypatch, limit):
    expected = list(epoch(patterned()))
    monkeypatch.setattr(batches, limit, 0)
    images = patterned()
    assert same(epoch(images), expected)


@pytest.mark.parametrize(("limit", "place"), [(2**30, "meta"), (0, "cpu")])
def test_the_set_lies_on_the_accelerator_if_it_fits_and_is_augmented_there(monkeypatch, limit, place):
    monkeypatch.setattr(batches, "_ON_DEVICE_BYTES", limit)
    images = patterned()
    how = {"size": None, "device": torch.device("meta"), "memory_format": torch.channels_last}
    stored = batches.prepared(images.images, **how)
    assert (stored.device.type, stored.dtype, tuple(stored.shape)) == (place, torch.uint8, (70, 12, 12, 3))
    chosen = batches._chosen(stored, torch.arange(16), torch.channels_last)
    assert (chosen.device.type, tuple(chosen.shape)) == (place, (16, 3, 12, 12))
    draws = batches.draw(16, size=(12, 12), flip=True, crop=3, cutout=4, generator=torch.Generator())
    moved = batches._moved(chosen.to("meta"), draws, crop=3, fill="reflect")
    assert (moved.device.type, tuple(moved.shape)) == ("meta", (16, 3, 12, 12))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("n", [70, 11])
def test_the_shares_of_all_processes_make_the_batch_of_one(ranks, n):
    images = patterned(n)
    how = {"cutout": 4, "number": 2, "mean": (0.3,) * 3, "std": (0.2,) * 3}
    parts = [list(epoch(images, rank=rank, ranks=ranks, **how)) for rank in range(ranks)]
    joined = [tuple(torch.cat(pieces) for pieces in zip(*shares, strict=True)) for shares in zip(*parts, strict=True)]
    assert same(joined, epoch(images, **how))
    assert all(len(y) > 0 for share in parts for _, y in share)
    if n >= 16:
        assert all(len(y) == 16 // ranks for share in parts for _, y in share)


@pytest.mark.parametrize("augment", ["trivial", "rand"])
def test_operations_are_done_to_whole_images_before_they_are_mirrored_and_shifted(monkeypatch, augment):
    images, seen = patterned(), []
    monkeypatch.setattr(batches, "operate", lambda batch, drawn: seen.append((batch.clone(), drawn)) or operate(batch, drawn))
    still = by_label(epoch(images, augment=augment, flip=False, crop=0))
    moved = by_label(epoch(images, augment=augment))
    assert all(torch.equal(batch, other) for (batch, _), (other, _) in zip(seen[:4], seen[4:], strict=True))
    changed = sum(not torch.equal(still[label], images.images[label].float()) for label in still)
    assert changed > len(still) / 2
    for label, x in moved.items():
        framed = F.pad(still[label], (3, 3, 3, 3))
        windows = torch.cat([frame.unfold(1, 12, 1).unfold(2, 12, 1) for frame in (framed, framed.flip(2))], dim=1)
        assert any(torch.equal(x, windows[:, dy, dx]) for dy in range(14) for dx in range(7))


@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize(("channels", "size"), [(3, None), (1, 8)])
def test_batches_with_everything_lie_in_memory_as_asked_for(channels, size, memory_format):
    how = {"mean": (0.3,) * channels, "std": (0.2,) * channels, "augment": "rand", "mixing": Mixing(0.4, 1.0, 70)}
    wide = epoch(patterned(channels=channels), size=size, memory_format=memory_format, **how)
    narrow = epoch(patterned(channels=channels), size=size, memory_format=memory_format, dtype=torch.bfloat16, **how)
    for (x, y), (short, again) in zip(wide, narrow, strict=True):
        assert x.is_contiguous(memory_format=memory_format) and short.is_contiguous(memory_format=memory_format)
        assert x.shape == (16, channels, size or 12, size or 12) and short.dtype == torch.bfloat16
        assert torch.equal(y, again)
        torch.testing.assert_close(short.float(), x, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("augment", ["trivial", "rand"])
def test_operations_follow_from_seed_epoch_and_batch(augment):
    images, how = patterned(), {"augment": augment, "mixing": Mixing(0.4, 1.0, 70)}
    whole = list(epoch(images, **how))
    assert same(epoch(images, start=2, **how), whole[2:])
    assert same(epoch(images, memory_format=torch.contiguous_format, **how), whole)
    assert not same(epoch(images, number=1, **how), whole) and not same(epoch(images, seed=6, **how), whole)


def test_mixed_images_are_shared_by_processes_as_one_would_have_them():
    images, how = patterned(), {"augment": "rand", "cutout": 4, "mixing": Mixing(0.4, 1.0, 70)}
    parts = [list(epoch(images, rank=rank, ranks=2, **how)) for rank in (0, 1)]
    joined = [tuple(torch.cat(pieces) for pieces in zip(*shares, strict=True)) for shares in zip(*parts, strict=True)]
    assert same(joined, epoch(images, **how))
    assert all(len(x) == len(y) == 8 for share in parts for x, y in share)


@pytest.mark.parametrize("mixing", [Mixing(0.4, 0.0, 70), Mixing(0.0, 1.0, 70)])
def test_images_are_mixed_as_their_labels_say(mixing):
    """Each image has its own number as its pixels, so that the mean of the pixels is that of the shares."""
    images = ImageSet(torch.arange(70).to(torch.uint8).view(70, 1, 1, 1).repeat(1, 3, 12, 12), torch.arange(70))
    shown = list(epoch(images, crop=0, mixing=mixing))
    for x, shares in shown:
        assert shares.shape == (16, 70) and torch.allclose(shares.sum(1), torch.ones(16))
        torch.testing.assert_close(x.mean((1, 2, 3)), shares @ torch.arange(70.0), rtol=1e-4, atol=1e-3)
    assert any(bool((shares.amax(1) < 0.99).any()) for _, shares in shown)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"augment": "light"}, "no augmentation called 'light'. Choose from none, trivial, rand"),
        (
            {"augment": "rand", "images": ImageSet(torch.zeros(70, 3, 12, 10, dtype=torch.uint8), torch.arange(70))},
            "images of 12x10",
        ),
        ({"mixing": Mixing(-1.0, 0.0, 70)}, "mixup is -1.0"),
        ({"mixing": Mixing(1.0, 0.0, 10)}, "of 10 classes"),
        ({"flip_rule": "always"}, "no flip rule called 'always'. Choose random or alternating"),
        ({"crop_fill": "ones"}, "no crop fill called 'ones'. Choose zeros or reflect"),
        ({"size": 0}, "scaled to 0 pixels"),
        ({"size": 3, "crop": 3}, "does not fit images of 3 pixels"),
        ({"ranks": 3}, "a batch of 16 images cannot be shared by 3 processes"),
        ({"rank": 2, "ranks": 2}, "process 2 of 2 does not exist"),
        ({"rank": -1, "ranks": 2}, "process -1 of 2 does not exist"),
        ({"batch_size": 128, "ranks": 128}, "70 images are too few for 128 processes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, reason):
    with pytest.raises(UserError, match=reason):
        next(epoch(**({"images": patterned()} | changes)))
