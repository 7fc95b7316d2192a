import torch

from convatlas.data.synthetic import N_TEST, N_TRAIN, SHAPES, draw_shapes, read_shapes

# The set is the same data set for every run and on every machine: change it only on purpose, and say so in the changelog.
FINGERPRINT = "b81aed324d99fbaa7b6926281439ed57"


def test_shapes_are_the_same_pixels_as_ever():
    assert read_shapes().fingerprint == FINGERPRINT


def test_drawing_leaves_the_global_random_state_alone_and_depends_on_the_seed():
    torch.manual_seed(1)
    first = draw_shapes(200, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first.images, draw_shapes(200, seed=5).images)
    assert not torch.equal(first.images, draw_shapes(200, seed=6).images)


def test_classes_are_equally_frequent_and_mixed():
    reading = read_shapes()
    assert reading.train.labels.bincount().tolist() == [N_TRAIN // 10] * 10
    assert reading.test.labels.bincount().tolist() == [N_TEST // 10] * 10
    assert reading.classes == tuple(SHAPES)
    assert len(set(reading.train.labels[:40].tolist())) > 5


def test_no_image_occurs_twice():
    reading = read_shapes()
    images = torch.cat([reading.train.images, reading.test.images]).flatten(1)
    assert len({bytes(row) for row in images.numpy()}) == N_TRAIN + N_TEST


def test_the_shape_and_not_the_overall_colour_tells_the_class():
    images = draw_shapes(4000, seed=9)
    tone = images.images.float().mean((1, 2, 3))
    per_class = torch.stack([tone[images.labels == label].mean() for label in range(10)])
    assert float(per_class.std()) < 0.2 * float(tone.std())
