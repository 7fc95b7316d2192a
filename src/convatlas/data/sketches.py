"""Short vectors of pictures by which look-alikes are found among very many: near duplicates have nearly the same.

A sketch says how strong edges of eight directions are in each of 4x4 places (as in the histograms of Dalal & Triggs 2005), and
what colour each place has relative to the whole. A picture that is cut, scaled, recoloured or compressed a little anew changes
neither much. The numbers are then turned to the directions in which this data varies most, 64 of them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LENGTH = 64
_DIRECTIONS = 8
_PLACES = 4
# Colour counts less than edges: a copy is often recoloured.
_COLOUR = 0.7
# Directions in which the data varies more count less: by the fourth root of that variance.
_WHITENING = -0.25
_LEAST_VARIANCE = 1e-4
_AT_ONCE = 512
_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Basis:
    """How raw sketches of one data set become short ones: less their `mean` (their edges less `edges` before), and turned."""

    edges: Tensor
    mean: Tensor
    directions: Tensor


def grey(pictures: Tensor) -> Tensor:
    """uint8 (N, 1 or 3, S, S) as luminance (N, S, S) in 0..1."""
    values = pictures.float() / 255
    return values[:, 0] if pictures.shape[1] == 1 else torch.einsum("nchw,c->nhw", values, torch.tensor(_GREY))


def basis_of(pictures: Tensor) -> Basis:
    """The basis for the data that uint8 `pictures` (N, C, S, S) are a sample of."""
    edges, colours = _raw(pictures)
    centre = edges.mean(0)
    raw = _joined(edges, colours, centre)
    mean = raw.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov((raw - mean).T.double()))
    kept = min(LENGTH, raw.shape[1])
    weights = variances[-kept:].clamp_min(variances[-1] * _LEAST_VARIANCE + 1e-12) ** _WHITENING
    return Basis(centre, mean, (directions[:, -kept:] * weights).float())


def sketches(pictures: Tensor, basis: Basis | None) -> Tensor:
    """The sketches (N, 64), each of length 1, of uint8 `pictures` (N, C, S, S); without a basis, longer ones as they are."""
    edges, colours = _raw(pictures)
    if basis is None:
        return _unit(torch.cat([edges, _COLOUR * colours], 1))
    return _unit((_joined(edges, colours, basis.edges) - basis.mean) @ basis.directions)


def _joined(edges: Tensor, colours: Tensor, centre: Tensor) -> Tensor:
    return torch.cat([_unit(edges - centre), _COLOUR * colours], 1)


def _raw(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Edges (N, 128) and colours (N, 16 C), each vector of length 1."""
    parts = [_raw_part(pictures[first : first + _AT_ONCE]) for first in range(0, len(pictures), _AT_ONCE)]
    edges, colours = (torch.cat(each) for each in zip(*parts, strict=True))
    return edges, colours


def _raw_part(pictures: Tensor) -> tuple[Tensor, Tensor]:
    light = grey(pictures)
    size = light.shape[-1]
    framed = torch.nn.functional.pad(light[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    right, down = framed[:, 1:-1, 2:] - framed[:, 1:-1, :-2], framed[:, 2:, 1:-1] - framed[:, :-2, 1:-1]
    angles = [2 * math.pi * each / _DIRECTIONS for each in range(_DIRECTIONS)]
    strengths = torch.stack([math.cos(angle) * right + math.sin(angle) * down for angle in angles], 1).clamp_min_(0)
    overlapping = _pooling(size, overlap=True)
    edges = (overlapping @ strengths @ overlapping.T).flatten(1).clamp_min(0).sqrt()
    apart = _pooling(size, overlap=False)
    colours = apart @ (pictures.float() / 255) @ apart.T
    return _unit(edges), _unit((colours - colours.mean((1, 2, 3), keepdim=True)).flatten(1))


def _pooling(size: int, *, overlap: bool) -> Tensor:
    """What each pixel along an axis counts for each place: a triangle that reaches to the neighbours' middles, or its share."""
    place = size / _PLACES
    middles = (torch.arange(_PLACES) + 0.5) * place
    distances = (torch.arange(size) + 0.5 - middles[:, None]).abs() / place
    return (1 - distances).clamp_min(0) / place if overlap else (distances < 0.5).float() / place


def _unit(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / (length + 1e-6)
