"""MixUp and CutMix: what is mixed, and that labels say so."""

import pytest
import torch

from convatlas.data.mixing import mixed

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def blend(n=6, *, mixup=0.0, cutmix=0.0, seed=0, layout=torch.contiguous_format, classes=6, size=20):
    """Images of one value each, their own number, so that every pixel tells where it comes from."""
    images = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).repeat(1, 3, size, size).contiguous(memory_format=layout)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    return mixed(images, labels, num_classes=classes, mixup=mixup, cutmix=cutmix, generator=generator)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mixup_adds_images_and_labels_in_the_same_shares(layout):
    for seed in range(20):
        images, shares = blend(mixup=0.4, seed=seed, layout=layout)
        assert images.is_contiguous(memory_format=layout) and shares.dtype == torch.float32
        torch.testing.assert_close(shares.sum(1), torch.ones(6))
        # An image is its label's number, so that the mean number by shares is the image.
        torch.testing.assert_close(images[:, 0, 0, 0], shares @ torch.arange(6.0), rtol=1e-5, atol=1e-5)
        assert torch.equal(images.amin((1, 2, 3)), images.amax((1, 2, 3)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [20, 21])
def test_cutmix_counts_the_pixels_it_has_pasted(layout, size):
    areas = set()
    for seed in range(40):
        images, shares = blend(cutmix=1.0, seed=seed, layout=layout, size=size)
        assert images.is_contiguous(memory_format=layout)
        torch.testing.assert_close(shares.sum(1), torch.ones(6))
        for i in range(6):
            counted = images[i, 0].flatten().long().bincount(minlength=6) / size**2
            torch.testing.assert_close(counted, shares[i])
            pasted = images[i, 0] != i
            rows, columns = pasted.any(1), pasted.any(0)
            assert int(pasted.sum()) == int(rows.sum()) * int(columns.sum())
            areas.add(int(pasted.sum()))
    assert len(areas) > 15


def test_both_are_chosen_by_a_coin_and_neither_leaves_the_images():
    images, shares = blend()
    assert torch.equal(shares, torch.eye(6)) and torch.equal(images[:, 0, 0, 0], torch.arange(6.0))
    whole = [bool((x == x.round()).all()) for x in (blend(mixup=1.0, cutmix=1.0, seed=seed)[0] for seed in range(60))]
    assert 15 < sum(whole) < 45


def test_alpha_decides_how_far_images_are_mixed():
    kept = {alpha: torch.stack([blend(mixup=alpha, seed=s)[1].amax(1).min() for s in range(100)]) for alpha in (0.1, 1.0, 50.0)}
    means = [float(kept[alpha].mean()) for alpha in (0.1, 1.0, 50.0)]
    assert means == sorted(means, reverse=True) and means[0] > 0.9 and means[2] < 0.6
    assert float(kept[1.0].mean()) == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_images_are_mixed_too(n):
    for how in ({"mixup": 0.3}, {"cutmix": 0.3}):
        images, shares = blend(n, **how)
        assert images.shape[0] == n and torch.allclose(shares.sum(1), torch.ones(n))


@pytest.mark.parametrize("how", [{"mixup": 0.3, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 0.3}, {"mixup": 0.0, "cutmix": 0.0}])
def test_shares_are_where_the_images_are(how):
    images = torch.empty(6, 3, 8, 8, device="meta")
    done = mixed(images, torch.arange(6), num_classes=6, generator=torch.Generator(), **how)
    assert [each.device.type for each in done] == ["meta", "meta"]
