"""The short way gives the shapes, types and strides that torch gives, and refuses what torch refuses, for whatever form of an operation."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from convatlas.inspection.shapes_only import short_way


def told(compute):
    """What comes out on the meta device: shapes, types and strides, or the type of the error."""
    try:
        results = compute()
    except Exception as error:
        return type(error)
    results = results if isinstance(results, tuple) else (results,)
    return [(each.shape, each.dtype, each.stride(), each.is_meta) for each in results]


def both_ways(compute):
    wanted = told(compute)
    with short_way():
        found = told(compute)
    assert found == wanted
    return wanted


def maps(*shape, **options):
    return torch.empty(shape, device="meta", **options)


CONVOLUTIONS = list(
    itertools.product(
        (1, 2, 3), (1, 3, (3, 2)), (1, 2, (2, 1)), (0, 1, (1, 0)), (1, 2), (1, 2, 3), (torch.float32, torch.bfloat16)
    )
)


def test_convolutions():
    """Every window on small maps, also ones that it does not fit into, and groups that the channels do not make up."""
    errors = 0
    for n, kernel, stride, padding, dilation, groups, dtype in CONVOLUTIONS:
        for side, inputs in ((7, 6), (2, 4)):
            height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
            weight = maps(6, max(1, 6 // groups), height, width, dtype=dtype)
            x = maps(n, inputs, side, side + 1, dtype=dtype)
            found = both_ways(lambda: F.conv2d(x, weight, None, stride, padding, dilation, groups))  # noqa: B023
            errors += isinstance(found, type)
    assert 0 < errors < len(CONVOLUTIONS) * 2


@pytest.mark.parametrize(
    "compute",
    [
        lambda: F.conv1d(maps(2, 3, 9), maps(4, 3, 3)),
        lambda: F.conv3d(maps(2, 3, 5, 6, 7), maps(4, 3, 3, 3, 3), padding=1),
        lambda: F.conv2d(maps(3, 9, 9), maps(4, 3, 3, 3)),
        lambda: F.conv2d(maps(0, 3, 9, 9), maps(4, 3, 3, 3)),
        lambda: F.conv2d(maps(2, 3, 9, 9), maps(4, 3, 3, 3), maps(4)),
        lambda: F.conv2d(maps(2, 3, 9, 9), maps(4, 3, 3, 3), maps(5)),
        lambda: F.conv2d(maps(2, 3, 9, 9), maps(4, 3, 3, 3), padding="same"),
        lambda: F.conv2d(maps(2, 3, 9, 9), maps(4, 3, 3, 3, dtype=torch.float64)),
        lambda: F.conv2d(maps(2, 3, 9, 9), maps(4, 3, 3)),
        lambda: F.conv2d(maps(2, 3, 9, 9), maps(4, 3, 3, 3), stride=0),
        lambda: F.conv2d(maps(2, 3, 9, 9), maps(4, 3, 3, 3), padding=-1),
        lambda: F.conv2d(maps(2, 3, 9, 9), torch.zeros(4, 3, 3, 3)),
        lambda: F.conv2d(torch.zeros(2, 3, 9, 9), torch.zeros(4, 3, 3, 3)),
        lambda: F.conv2d(maps(2, 3, 9, 9).to(memory_format=torch.channels_last), maps(4, 3, 3, 3)),
        lambda: F.conv2d(maps(2, 3, 9, 9), maps(4, 3, 3, 3).to(memory_format=torch.channels_last)),
        lambda: F.conv2d(maps(2, 3, 9, 9)[:, :, ::2], maps(4, 3, 3, 3)),
        lambda: F.conv_transpose2d(maps(2, 3, 9, 9), maps(3, 4, 3, 3), stride=2, output_padding=1),
        lambda: maps(2, 3, 4, 4) + maps(3, 1, 4),
        lambda: maps(2, 3, 4, 4) * maps(2, 3, 4, 4),
        lambda: maps(2, 3, 4, 4).to(memory_format=torch.channels_last) + maps(2, 3, 4, 4),
        lambda: F.relu(maps(2, 3, 4, 4)[:, :, ::2]),
        lambda: maps(2, 3, 4, 4) + maps(2, 3, 5, 4),
        lambda: maps(2, 3, dtype=torch.bfloat16) + 1.5,
        lambda: torch.cat([maps(2, 3, 4, 4), maps(2, 1, 4, 4)], dim=1),
        lambda: F.linear(maps(2, 3), maps(5, 3), maps(5)),
        lambda: F.linear(maps(2, 3), maps(5, 4), maps(5)),
        lambda: maps(2, 3, 4, 4).mean((2, 3), keepdim=True),
        lambda: F.layer_norm(maps(2, 4, 4, 3), (3,)),
        lambda: F.batch_norm(maps(2, 3, 4, 4), maps(3), maps(3)),
        lambda: F.batch_norm(maps(2, 3, 4, 4), maps(3), maps(3), training=True),
        lambda: F.batch_norm(maps(2, 3, 4, 4).to(memory_format=torch.channels_last), maps(3), maps(3), training=True),
    ],
)  # fmt: skip
def test_forms_of_operations(compute):
    both_ways(compute)
