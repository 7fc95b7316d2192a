import itertools

import pytest
import torch

from convatlas.data import loading, places
from convatlas.data.batches import batches_in_epoch, evaluation_batches, training_batches
from convatlas.data.catalog import CATALOG
from convatlas.data.dataset import ImageSet
from convatlas.data.loading import _resized, load_data
from convatlas.errors import UserError

from .makers import cifar10_contents, write_classes, write_folder


def coloured(n=50, size=8):
    pixels = torch.arange(n * 3 * size * size, dtype=torch.int64) * 7 % 256
    return ImageSet(pixels.to(torch.uint8).reshape(n, 3, size, size), torch.arange(n) % 10)


def epoch(images, *, start=0, number=0, seed=5, batch_size=8, **changes):
    settings = {
        "flip": True,
        "crop": 2,
        "cutout": 3,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
        "dtype": torch.float32,
        "memory_format": torch.contiguous_format,
        "device": "cpu",
    }
    return training_batches(images, batch_size=batch_size, seed=seed, epoch=number, start=start, **(settings | changes))


def same(first, second):
    pairs = list(itertools.zip_longest(first, second))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("start", [1, 4, 5])
def test_an_epoch_begun_in_the_middle_yields_the_very_batches_of_an_unbroken_one(start):
    images = coloured()
    whole = list(epoch(images))
    torch.manual_seed(99)
    torch.rand(7)
    assert len(whole) == 6
    assert same(whole[start:], epoch(images, start=start))


def test_batches_leave_the_global_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    list(epoch(coloured()))
    assert torch.equal(before, torch.get_rng_state())


def test_epochs_and_seeds_differ_in_order_and_augmentation():
    images = coloured()
    first = next(epoch(images))
    assert not torch.equal(first[1], next(epoch(images, number=1))[1])
    assert not torch.equal(first[1], next(epoch(images, seed=6))[1])


def test_batches_of_one_epoch_are_augmented_each_in_its_own_way():
    image = coloured(1).images
    first, second = itertools.islice(
        epoch(ImageSet(image.repeat(40, 1, 1, 1), torch.zeros(40, dtype=torch.int64)), batch_size=20), 2
    )
    assert not torch.equal(first[0], second[0])


def test_an_epoch_shows_every_image_at_most_once_and_keeps_labels_with_images():
    images = ImageSet(torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 3, 8, 8).contiguous(), torch.arange(50))
    seen = []
    for batch, labels in epoch(images, crop=0, cutout=0, mean=(0.0,) * 3, std=(1 / 255,) * 3):
        assert torch.equal(batch[:, 0, 0, 0].round().long(), labels)
        seen += labels.tolist()
    assert len(seen) == len(set(seen)) == 48


def test_batches_come_in_the_precision_and_memory_format_asked_for():
    batch, labels = next(epoch(coloured(), dtype=torch.bfloat16, memory_format=torch.channels_last))
    assert batch.dtype == torch.bfloat16
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(("n", "size", "expected"), [(50, 8, 6), (48, 8, 6), (7, 8, 1), (8, 8, 1)])
def test_the_last_incomplete_batch_is_dropped_unless_it_is_the_only_one(n, size, expected):
    batches = list(epoch(coloured(n), batch_size=size))
    assert len(batches) == batches_in_epoch(n, size) == expected
    assert all(len(labels) == min(n, size) for _, labels in batches)


@pytest.mark.parametrize("setting", [{"crop": 8}, {"crop": -1}, {"cutout": 9}, {"cutout": -2}])
def test_augmentation_that_does_not_fit_the_images_is_refused(setting):
    with pytest.raises(UserError, match="does not fit images of 8 pixels"):
        next(epoch(coloured(), **setting))


def test_evaluation_shows_all_images_in_order_unchanged():
    images = coloured(21)
    batches = list(
        evaluation_batches(
            images,
            batch_size=8,
            mean=(0.5, 0.4, 0.3),
            std=(0.2, 0.3, 0.4),
            dtype=torch.float32,
            memory_format=torch.channels_last,
            device="cpu",
        )
    )
    assert [len(labels) for _, labels in batches] == [8, 8, 5]
    values = torch.cat([batch for batch, _ in batches])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(values, (images.images / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)


@pytest.mark.parametrize(("name", "kind"), [("mine", "folder"), ("mine.csv", "csv")])
def test_a_place_named_as_a_set_is_answered_with_how_to_name_it(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"no data set called '{name}'. .*--data {kind} --data-root {name}.$"):
        load_data(name)
    with pytest.raises(UserError, match="`convatlas data` lists them"):
        load_data("x" * 300)


def test_an_unknown_name_is_answered_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"no data set called 'cifar-10'\. Did you mean cifar10"):
        load_data("cifar-10")


@pytest.mark.parametrize("name", ["folder", "csv"])
def test_own_data_needs_a_place(name):
    with pytest.raises(UserError, match=r"needs a place\. Give it with --data-root"):
        load_data(name)


@pytest.mark.parametrize("setting", [{"image_size": 0}, {"image_size": -3}, {"validation": -0.1}, {"validation": 1.0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UserError, match=r"Choose one from"):
        load_data("digits", **setting)


def test_the_validation_split_is_stratified_and_depends_on_the_seed_alone(tmp_path):
    write_folder(tmp_path, cifar10_contents())
    first, again, other = (load_data("cifar10", root=tmp_path, verify=False, validation=0.25, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.val.images, again.val.images)
    assert not torch.equal(first.val.images, other.val.images)
    assert first.fingerprint == other.fingerprint
    assert first.val.labels.bincount().tolist() == [4, 4, 3, 3, 3, 2, 2, 2, 2, 2]
    assert len(first.train) + len(first.val) == 115


def test_validation_may_be_left_out(tmp_path):
    data = load_data("cifar10", root=write_folder(tmp_path, cifar10_contents()), verify=False, validation=0.0)
    assert (len(data.train), len(data.val)) == (115, 0)


def test_statistics_are_those_of_the_training_images(tmp_path):
    data = load_data("cifar10", root=write_folder(tmp_path, cifar10_contents()), verify=False)
    values = data.train.images.double().transpose(0, 1).flatten(1) / 255
    assert data.mean == pytest.approx(values.mean(1).tolist(), abs=1e-12)
    assert data.std == pytest.approx(values.std(1, correction=0).tolist(), abs=1e-12)


def test_images_are_resized_on_request_in_every_split(tmp_path):
    root = write_folder(tmp_path, cifar10_contents())
    native, small = load_data("cifar10", root=root, verify=False), load_data("cifar10", root=root, verify=False, image_size=16)
    assert {tuple(part.images.shape[1:]) for part in (small.train, small.val, small.test)} == {(3, 16, 16)}
    assert small.test.images.dtype == torch.uint8
    assert small.image_size == 16
    # Noise averaged over 2x2 pixels keeps its mean and loses spread.
    assert small.mean == pytest.approx(native.mean, abs=0.01)
    assert all(s < 0.75 * n for s, n in zip(small.std, native.std, strict=True))
    assert small.fingerprint == native.fingerprint


def test_a_size_that_no_memory_holds_is_refused_before_it_is_tried(tmp_path):
    root = write_folder(tmp_path, cifar10_contents())
    images = load_data("cifar10", root=root, verify=False).train
    many = ImageSet(images.images[:1].expand(2_000_000, 3, 32, 32), images.labels[:1].expand(2_000_000))
    with pytest.raises(UserError, match="GiB of memory"):
        _resized(many, 224, "bicubic")


def test_folder_pictures_come_at_64_pixels_unless_told(tmp_path):
    root = write_classes(tmp_path)
    assert load_data("folder", root=root).image_size == 64
    assert load_data("folder", root=root, image_size=32).image_size == 32


def test_digits_have_ten_grey_classes():
    pytest.importorskip("sklearn")
    data = load_data("digits")
    assert (data.in_chans, data.image_size, data.num_classes) == (1, 8, 10)
    assert len(data.train) + len(data.val) == CATALOG["digits"].n_train
    assert len(data.test) == CATALOG["digits"].n_test
    assert int(data.train.images.max()) == 255


@pytest.mark.parametrize("given", [True, False])
def test_what_is_missing_is_downloaded_to_the_root_or_the_cache_and_only_if_asked(tmp_path, monkeypatch, given):
    fetched = []

    def fake(name, folder, *, progress):
        fetched.append(folder)
        write_folder(folder, cifar10_contents())

    monkeypatch.setattr(loading, "download_entry", fake)
    root = tmp_path / "new" if given else None
    with pytest.raises(UserError, match="--download"):
        load_data("cifar10", root=root, verify=False)
    assert fetched == []
    for _ in range(2):
        load_data("cifar10", root=root, verify=False, download=True)
    assert fetched == [tmp_path / "new" if given else places.cache_folder() / "cifar10"]


def test_where_data_was_read_from_is_remembered(tmp_path):
    published = load_data("cifar10", root=write_folder(tmp_path / "cifar", cifar10_contents()), verify=False)
    own = load_data("folder", root=write_classes(tmp_path / "own"))
    assert places.recall(published.fingerprint) == tmp_path / "cifar"
    assert places.recall(own.fingerprint) == tmp_path / "own"
