"""Augmentation policies: each operation does what Pillow does, and a batch follows from seed, epoch and index alone."""

import hashlib
import itertools
from collections import Counter

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from convatlas.data import operating, policies
from convatlas.data.batches import evaluation_batches
from convatlas.data.dataset import ImageSet
from convatlas.data.operating import Drawn, strengths
from convatlas.data.policies import (
    PolicyDraws,
    apply_policy,
    balanced_order,
    draw_policy,
    policy_batches,
    policy_batches_in_epoch,
    stored_side,
    words,
)
from convatlas.data.policy_names import POLICIES
from convatlas.data.policy_ops import OPERATIONS, PIXEL_OPERATIONS
from convatlas.errors import UserError
from tests.parity.reference_libraries import torchvision

LAYOUTS = [torch.contiguous_format, torch.channels_last]
FACTORS = [0.01, 0.37, 1.0, 1.5, 1.99]
WITH_PILLOW = {
    "brightness": (lambda image, by: ImageEnhance.Brightness(image).enhance(by), FACTORS),
    "colour": (lambda image, by: ImageEnhance.Color(image).enhance(by), FACTORS),
    "contrast": (lambda image, by: ImageEnhance.Contrast(image).enhance(by), FACTORS),
    "sharpness": (lambda image, by: ImageEnhance.Sharpness(image).enhance(by), FACTORS),
    "posterize": (lambda image, by: ImageOps.posterize(image, int(by)), [1.0, 2.0, 3.0, 7.0, 8.0]),
    "solarize": (lambda image, by: ImageOps.solarize(image, by), [0.0, 33.5, 128.0, 254.2, 255.0]),
    "autocontrast": (lambda image, by: ImageOps.autocontrast(image), [0.0]),
    "equalize": (lambda image, by: ImageOps.equalize(image), [0.0]),
}
TURNED = {
    "identity": (1, 0, 0, 0, 1, 0),
    "shear x": (1, 0.4, 0, 0, 1, 0),
    "shear y": (1, 0, 0, -0.4, 1, 0),
    "translate x": (1, 0, 0.2 * 48, 0, 1, 0),
    "translate y": (1, 0, 0, 0, 1, -0.2 * 48),
}


def noise(n, channels=3, size=40, seed=0):
    return torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def smooth(n, channels=3, size=48):
    """Waves of many levels, which no sampling in between turns into noise."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    phases = torch.arange(n * channels).view(n, channels, 1, 1)
    return (127.5 + 127.5 * torch.sin(x / 7 + phases) * torch.cos(y / 9 - phases)).to(torch.uint8)


def hard(channels=3):
    """What operations trip over: one colour, two colours, a few levels, nearly black, and plain noise."""
    flat, two = torch.full((channels, 40, 40), 93, dtype=torch.uint8), torch.zeros(channels, 40, 40, dtype=torch.uint8)
    two[:, 7:9] = 255
    few = noise(1, channels)[0] // 80 + 60
    dark = two // 255
    return torch.stack([flat, two, few, dark, *noise(3, channels, seed=1), *smooth(2, channels, 40)])


def picture(image):
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).contiguous().numpy())


def tensor(image):
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, -1).permute(2, 0, 1)


def distance(first, second):
    return int((first.int() - second.int()).abs().max())


def drawn(policy, n=64, *, flip=True, seed=0):
    return draw_policy(n, policy=policy, flip=flip, generator=torch.Generator().manual_seed(seed))


def as_drawn(name, strength, n=1, *, box=(0.0, 0.0, 1.0, 1.0), mirrored=False):
    whole = torch.tensor(box, dtype=torch.float64)[:, None].repeat(1, n)
    operations = torch.full((1, n), OPERATIONS.index(name))
    return PolicyDraws(whole, torch.full((n,), mirrored), Drawn(operations, torch.full((1, n), strength)))


def photographs(n=37, channels=3, size=32, classes=4):
    return ImageSet(smooth(n, channels, size), torch.arange(n) % classes)


def epoch(images, *, number=0, **changes):
    channels = images.images.shape[1]
    settings = {
        "batch_size": 8,
        "seed": 5,
        "policy": "trivial",
        "size": 28,
        "flip": True,
        "mean": (0.0,) * channels,
        "std": (1 / 255,) * channels,
        "mixup": 0.0,
        "cutmix": 0.0,
        "num_classes": 4,
        "balanced": False,
        "dtype": torch.float32,
        "memory_format": torch.contiguous_format,
        "device": "cpu",
    }
    return policy_batches(images, epoch=number, **(settings | changes))


def same(first, second):
    pairs = itertools.zip_longest(first, second)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WITH_PILLOW)
def test_an_operation_does_what_pillow_does(name, channels):
    done_by_pillow, given = WITH_PILLOW[name]
    images = hard(channels)
    for strength in given:
        before = images.clone()
        ours = PIXEL_OPERATIONS[name](images, torch.full((len(images),), strength))
        theirs = torch.stack([tensor(done_by_pillow(picture(image), strength)) for image in images])
        # A blend is cut off after a sum in floating point; all others are tables.
        assert distance(ours, theirs) <= (1 if given is FACTORS else 0)
        assert (ours == theirs).float().mean() > 0.999
        assert torch.equal(images, before)


def test_each_image_has_its_own_strength():
    images = noise(3)
    for name, (_, given) in WITH_PILLOW.items():
        several = torch.tensor((given * 3)[:3])
        together = PIXEL_OPERATIONS[name](images, several)
        for i in range(3):
            assert torch.equal(together[i : i + 1], PIXEL_OPERATIONS[name](images[i : i + 1], several[i : i + 1]))


def test_the_smallest_images_are_changed_too():
    for size in (1, 2):
        for operation in PIXEL_OPERATIONS.values():
            assert operation(noise(2, 3, size), torch.full((2,), 1.0)).shape == (2, 3, size, size)


@pytest.mark.parametrize("name", TURNED)
def test_what_moves_pixels_moves_them_as_pillow_does(name):
    images, strength = smooth(2), {"shear x": 0.4, "shear y": -0.4, "translate x": 0.2, "translate y": -0.2}.get(name, 0.0)
    ours = apply_policy(images, as_drawn(name, strength, 2), size=48)
    for image, moved in zip(images, ours, strict=True):
        theirs = tensor(picture(image).transform((48, 48), Image.Transform.AFFINE, TURNED[name], Image.Resampling.BILINEAR))
        inside = tensor(picture(torch.ones_like(image)).transform((48, 48), Image.Transform.AFFINE, TURNED[name])).bool()
        inside[:, [0, -1]], inside[:, :, [0, -1]] = False, False
        assert int(inside[0].sum()) > 1000
        assert distance(moved * inside, theirs * inside) <= 1


@pytest.mark.parametrize("augment", ["trivial", "rand"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3])
def test_only_images_that_are_moved_are_sampled_which_changes_none(augment, memory_format, channels, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (200, channels, 12, 12), dtype=torch.uint8, generator=generator)
    images = images.contiguous(memory_format=memory_format)
    drawn = operating.draw_operations(len(images), augment=augment, generator=generator)
    before, counts = images.clone(), []
    whole = torch.eye(3, dtype=torch.float64).repeat(len(images), 1, 1)
    wanted = operating.sampled(images, operating.moved_by(drawn, whole), 12)
    operating.recolour_(wanted, drawn)
    sampled = operating.sampled
    monkeypatch.setattr(operating, "sampled", lambda some, *rest: counts.append(len(some)) or sampled(some, *rest))
    assert torch.equal(operating.operate(images, drawn), wanted)
    assert torch.equal(images, before)
    moving = {OPERATIONS.index(name) for name in ("shear x", "shear y", "translate x", "translate y", "rotate")}
    assert counts == [sum(bool(moving & set(each)) for each in drawn.operations.T.tolist())]


def test_where_nothing_is_moved_nothing_is_sampled(monkeypatch):
    monkeypatch.setattr(operating, "sampled", None)
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    drawn = Drawn(torch.tensor([[OPERATIONS.index("identity"), OPERATIONS.index("posterize")]]), torch.tensor([[0.0, 1.0]]))
    assert torch.equal(operating.operate(images, drawn), torch.stack([images[0], images[1] & 128]))


@pytest.mark.parametrize("degrees", [-135.0, -20.0, 0.0, 45.0, 90.0])
def test_rotation_turns_counter_clockwise_about_the_middle(degrees):
    images = smooth(1)
    ours = apply_policy(images, as_drawn("rotate", degrees), size=48)[0]
    theirs = tensor(picture(images[0]).rotate(degrees, Image.Resampling.BILINEAR))
    y, x = torch.meshgrid(torch.arange(48) - 23.5, torch.arange(48) - 23.5, indexing="ij")
    inside = x**2 + y**2 < 22**2
    assert distance(ours * inside, theirs * inside) <= 1


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_cut_is_scaled_and_mirrored(mirrored):
    images = smooth(1, 3, 64)
    ours = apply_policy(images, as_drawn("identity", 0.0, box=(0.25, 0.125, 0.5, 0.75), mirrored=mirrored), size=48)[0]
    whole = picture(images[0])
    theirs = whole.transform((48, 48), Image.Transform.AFFINE, (32 / 48, 0, 16, 0, 1, 8), Image.Resampling.BILINEAR)
    assert distance(ours, tensor(ImageOps.mirror(theirs) if mirrored else theirs)) <= 1


def test_operations_follow_each_other_and_what_is_moved_in_is_the_photograph_mirrored():
    images = smooth(1)
    box = torch.tensor([[0.0], [0.0], [1.0], [1.0]], dtype=torch.float64)
    operations = torch.tensor([[OPERATIONS.index("translate x")], [OPERATIONS.index("solarize")]])
    moved = apply_policy(images, PolicyDraws(box, None, Drawn(operations, torch.tensor([[0.25], [100.0]]))), size=48)
    mirrored = torch.cat([images[..., 12:], images[..., 36:].flip(3)], dim=3)
    assert torch.equal(moved, PIXEL_OPERATIONS["solarize"](mirrored, torch.tensor([100.0])))
    back = PolicyDraws(box, None, Drawn(operations[[0, 0]], torch.tensor([[0.25], [-0.25]])))
    assert torch.equal(apply_policy(images, back, size=48), images)


@pytest.mark.parametrize(
    ("space", "theirs"),
    [
        (operating.WIDE, torchvision.transforms.TrivialAugmentWide()._augmentation_space(31)),
        (operating.STANDARD, torchvision.transforms.RandAugment()._augmentation_space(31, (224, 224))),
    ],
)
def test_strengths_are_those_of_torchvision(space, theirs):
    shares = torch.arange(31) / 30
    assert len(theirs) == len(OPERATIONS)
    for place, (known, (magnitudes, signed)) in enumerate(theirs.items()):
        name = OPERATIONS[place]
        assert known.lower().replace("color", "colour") == name.replace(" ", "")
        for sign in (-1, 1):
            ours = strengths(torch.full((31,), place), shares, torch.full((31,), sign), space=space).double()
            magnitude = magnitudes.double() * (sign if signed else 1)
            if name.startswith("translate"):
                ours = ours * 224
            elif known in ("Brightness", "Color", "Contrast", "Sharpness"):
                magnitude = magnitude + 1
            torch.testing.assert_close(ours, magnitude.expand(31), rtol=1e-5, atol=1e-4)


def test_cuts_lie_within_and_have_the_areas_and_aspects_that_are_said():
    left, top, width, height = drawn("light", 20_000).box
    area, aspect = width * height, width / height
    assert left.min() >= 0 and top.min() >= 0 and (left + width).max() <= 1 and (top + height).max() <= 1
    assert 0.35 <= area.min() < 0.36 and 0.99 < area.max() <= 1
    assert 0.75 <= aspect.min() < 0.76 and 1.32 < aspect.max() <= 4 / 3
    assert ((left < 0.5) & (left + width > 0.5) & (top < 0.5) & (top + height > 0.5)).all()
    assert float((policies.CROP / area.sqrt()).mean()) == pytest.approx(1.15, abs=0.01)


def test_smaller_cuts_miss_the_middle_and_look_larger(monkeypatch):
    """What the choice of areas is justified with."""
    monkeypatch.setattr(policies, "AREA", (0.08, 1.0))
    left, top, width, height = drawn("light", 20_000).box
    middle = (left < 0.5) & (left + width > 0.5) & (top < 0.5) & (top + height > 0.5)
    assert 1 - float(middle.float().mean()) == pytest.approx(1 / 9, abs=0.01)
    assert float((policies.CROP / (width * height).sqrt()).mean()) == pytest.approx(1.44, abs=0.02)


def test_every_operation_is_drawn_about_equally_often_and_rand_has_about_one_strength():
    trivial, rand = drawn("trivial", 14_000), drawn("rand", 14_000)
    assert (trivial.operated.operations.shape, rand.operated.operations.shape) == ((1, 14_000), (2, 14_000))
    for operations in (*trivial.operated.operations, *rand.operated.operations):
        counts = operations.bincount(minlength=len(OPERATIONS))
        assert 800 < int(counts.min()) <= int(counts.max()) < 1200
    for draws, low, high in ((trivial, 0.0, 0.991), (rand, 0.1, 0.5)):
        factors = (draws.operated.strengths[draws.operated.operations == OPERATIONS.index("contrast")] - 1).abs()
        assert low <= float(factors.min()) < float(factors.max()) <= high
    assert 0.45 < float(trivial.mirrored.float().mean()) < 0.55
    assert drawn("trivial", flip=False).mirrored is None


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_draws_are_a_function_of_the_generator_and_each_image_is_made_without_the_others(policy, channels):
    images, draws = smooth(64, channels, 32), drawn(policy)
    whole = apply_policy(images, draws, size=28)
    assert (whole.dtype, tuple(whole.shape)) == (torch.uint8, (64, channels, 28, 28))
    assert torch.equal(whole, apply_policy(images, drawn(policy), size=28))
    parts = [apply_policy(images[i : i + 3], draws.part(i, i + 3), size=28) for i in range(0, 64, 3)]
    assert torch.equal(whole, torch.cat(parts))
    different = apply_policy(images, drawn(policy, seed=1), size=28)
    assert torch.equal(whole, different) == (policy == "none")


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_drawn_is_done_where_the_images_are(policy):
    draws = drawn(policy)
    done = apply_policy(torch.empty(64, 3, 32, 32, dtype=torch.uint8, device="meta"), draws, size=28)
    assert (done.device.type, tuple(done.shape)) == ("meta", (64, 3, 28, 28))


def test_nothing_is_drawn_for_none():
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    draws = draw_policy(5, policy="none", flip=True, generator=generator)
    assert torch.equal(generator.get_state(), state)
    assert (draws.box, draws.mirrored, draws.operated) == (None,) * 3


@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize("size", [28, 29, 32])
def test_none_is_the_middle_that_evaluation_sees(size, memory_format):
    images = photographs()
    how = {"mean": (0.4,) * 3, "std": (0.2,) * 3, "dtype": torch.float32, "memory_format": memory_format, "device": "cpu"}
    (everything,) = evaluation_batches(images, batch_size=64, size=size, **how)
    seen = dict(zip(map(bytes, images.images.flatten(1).numpy()), everything[0], strict=True))
    assert len(seen) == len(images)
    by_place = ImageSet(images.images, torch.arange(len(images)))
    for x, y in epoch(by_place, policy="none", size=size, num_classes=64, **how):
        assert torch.equal(x, everything[0][y])


@pytest.mark.parametrize(
    ("policy", "pinned"), [("light", "0252c20943233c58"), ("trivial", "89ad312665bf61fa"), ("rand", "1139199aea1bf612")]
)
def test_what_is_drawn_is_that_of_every_version_before(policy, pinned):
    """Runs of another version can be gone on with, and repeated, only as long as this does not change."""
    drawn = draw_policy(200, policy=policy, flip=True, generator=torch.Generator().manual_seed(3))
    operated = () if drawn.operated is None else (drawn.operated.operations, drawn.operated.strengths)
    digest = hashlib.sha256()
    for each in (drawn.box, drawn.mirrored, *operated):
        digest.update((each.double() * 1e4).round().to(torch.int64).numpy().tobytes())
    assert digest.hexdigest()[:16] == pinned


@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4, "cutmix": 1.0}, {"balanced": True}, {"policy": "rand", "flip": False}])
def test_beginning_later_yields_what_an_unbroken_epoch_would_have(changes, memory_format):
    images = photographs()
    unbroken = list(epoch(images, number=2, memory_format=memory_format, **changes))
    assert len(unbroken) == policy_batches_in_epoch(37, 8) == 5
    for start in (1, 3, 4):
        torch.rand(7)
        assert same(epoch(images, number=2, start=start, memory_format=memory_format, **changes), unbroken[start:])
    assert all(x.is_contiguous(memory_format=memory_format) for x, _ in unbroken)
    for other in ({"number": 3}, {"number": 2, "seed": 6}):
        assert not same(epoch(images, memory_format=memory_format, **(other | changes)), unbroken)


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4, "cutmix": 1.0}])
def test_memory_formats_and_types_hold_the_same_values(changes):
    images = photographs()
    plain = list(epoch(images, **changes))
    assert same(epoch(images, memory_format=torch.channels_last, **changes), plain)
    for (x, y), (narrow, again) in zip(plain, epoch(images, dtype=torch.bfloat16, **changes), strict=True):
        assert narrow.dtype == torch.bfloat16 and torch.equal(y, again)
        torch.testing.assert_close(narrow.float(), x, rtol=1e-2, atol=1.5)


def test_each_image_comes_once_an_epoch_and_the_images_are_left_alone():
    images = ImageSet(smooth(37, 3, 32), torch.arange(37))
    before = images.images.clone()
    for number in (0, 1):
        labels = torch.cat([y for _, y in epoch(images, number=number, policy="rand", num_classes=37)])
        assert sorted(labels.tolist()) == list(range(37))
    assert torch.equal(images.images, before)


@pytest.mark.parametrize(
    ("n", "size", "batches"), [(1, 8, [1]), (2, 8, [2]), (9, 8, [8]), (10, 8, [8, 2]), (16, 8, [8, 8]), (3, 1, [1] * 3)]
)
def test_the_last_batch_is_kept_if_it_has_two_images(n, size, batches):
    images = photographs(n)
    assert [len(y) for _, y in epoch(images, batch_size=size, mixup=0.2)] == batches
    assert policy_batches_in_epoch(n, size) == len(batches)


def test_balanced_epochs_have_each_class_equally_often_and_its_images_too():
    labels = torch.tensor([0] * 70 + [1] * 25 + [3] * 4 + [5])
    for seed in range(5):
        order = balanced_order(labels, torch.Generator().manual_seed(seed))
        assert order.shape == (100,)
        assert labels[order].bincount().tolist() == [25, 25, 0, 25, 0, 25]
        times = Counter(order.tolist())
        assert {times[place] for place in range(70)} == {0, 1}
        assert {times[place] for place in range(70, 95)} == {1}
        assert {times[place] for place in range(95, 99)} == {6, 7} and times[99] == 25
        assert order.tolist() != sorted(order.tolist())
    seven = balanced_order(torch.tensor([0] * 5 + [1, 2]), torch.Generator().manual_seed(0))
    assert sorted(torch.tensor([0] * 5 + [1, 2])[seven].bincount().tolist()) == [2, 2, 3]
    rare = ImageSet(smooth(40, 3, 32), torch.tensor([0] * 38 + [1] * 2))
    drawn_labels = torch.cat([y for _, y in epoch(rare, balanced=True)])
    assert drawn_labels.bincount().tolist() == [20, 20]


def test_words_say_what_was_drawn():
    assert words(drawn("none"), 2) == ["the middle", "the middle"]
    box = torch.tensor([0.0, 0.0, 0.5, 0.8], dtype=torch.float64)[:, None].repeat(1, len(OPERATIONS))
    draws = PolicyDraws(box, torch.ones(14, dtype=torch.bool), Drawn(torch.arange(14)[None], torch.full((1, 14), 0.5)))
    said = words(draws, 14)
    assert said[0] == "40% of it, mirrored, identity"
    for place, ending in (
        (1, "shear x +0.50"),
        (3, "by +50%"),
        (5, "+0 degrees"),
        (6, "x0.50"),
        (10, "bits"),
        (12, "autocontrast"),
    ):
        assert said[place].endswith(ending)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": "trivia"}, "no augmentation policy called 'trivia'. Did you mean trivial"),
        ({"size": 33}, "33 pixels cannot be cut from images of 32. Hold them at 33 to 66 pixels; 38 are usual"),
        ({"size": 15}, "15 pixels cannot be cut from images of 32"),
        ({"size": 0}, "0 pixels cannot be cut from images of 32. Choose 1 or more"),
        ({"batch_size": 0}, "a batch has 0 images"),
        ({"mixup": -0.1}, "mixup is -0.1. Give an alpha above 0"),
        ({"cutmix": float("nan")}, "cutmix is nan"),
        ({"cutmix": 1.0, "num_classes": 3}, "a label is 3, of 3 classes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, reason):
    with pytest.raises(UserError, match=reason):
        next(epoch(photographs(), **changes))


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="no images"):
        next(epoch(photographs(0)))
    with pytest.raises(UserError, match="32x20 pixels. Load them as squares"):
        next(epoch(ImageSet(noise(2)[..., :32, :20], torch.zeros(2, dtype=torch.int64))))
    assert (stored_side(224), stored_side(28)) == (256, 32)
