import torch

from convatlas.data.dataset import ImageSet, channel_statistics, fingerprint_of_arrays, fingerprint_of_files


def small():
    return ImageSet(torch.arange(48, dtype=torch.uint8).view(4, 3, 2, 2), torch.tensor([0, 1, 0, 1]))


def test_a_subset_keeps_images_with_their_labels_in_the_order_asked_for():
    part = small().subset([3, 0])
    assert len(part) == 2
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.images[0], small().images[3])


def test_the_fingerprint_follows_pixels_labels_class_names_and_splits():
    images, changed_pixel, changed_label = small(), small(), small()
    changed_pixel.images[2, 1, 0, 0] += 1
    changed_label.labels[0] = 1
    prints = {
        fingerprint_of_arrays(classes, splits)
        for classes, splits in (
            (("a", "b"), {"train": images}),
            (("a", "c"), {"train": images}),
            (("a", "b"), {"test": images}),
            (("a", "b"), {"train": changed_pixel}),
            (("a", "b"), {"train": changed_label}),
        )
    }
    assert len(prints) == 5
    assert fingerprint_of_arrays(("a", "b"), {"train": small()}) in prints
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in prints)


def test_the_fingerprint_of_files_ignores_their_order_but_not_their_labels():
    files = [("aa", 0), ("bb", 1)]
    first = fingerprint_of_files(("a", "b"), {"train": files})
    assert first == fingerprint_of_files(("a", "b"), {"train": files[::-1]})
    assert first != fingerprint_of_files(("a", "b"), {"train": [("aa", 1), ("bb", 0)]})


def test_blank_images_have_a_deviation_that_can_be_divided_by():
    mean, std = channel_statistics(torch.full((5, 1, 3, 3), 255, dtype=torch.uint8))
    assert mean == (1.0,)
    assert std == (1 / 255,)
