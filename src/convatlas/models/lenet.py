"""LeNet-5 (1998): convolution, subsampling, and weights learnt end to end.

Paper: LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE
86(11), 1998, section II.B and figure 2.

    stem       none: the first convolution is already the first stage (nn.Identity)
    stages     C1 (6 maps, 5x5) and S2; C3 (16 maps, 5x5) and S4
    head       C5 (120 units that see all of S4), F6 (84 units), output
    squashing  1.7159 tanh(2a / 3)                                         appendix A (lenet5.paper)
    C3         sees three, four or six maps of S2                          table I (lenet5.paper)
    output     squared distances to fixed codes, 7x12 bitmaps of digits    section II.B, figure 3 (lenet5.paper)

Departures of `lenet5`, the form in which it is taught today (61,706 parameters with one input channel and ten classes):
- C3 sees all six maps of S2 (the paper's table I connects each of its maps to three, four or six of them).
- S2 and S4 average without trainable coefficient and bias, and no squashing function follows them.
- Plain tanh instead of 1.7159 tanh(2x / 3), with Glorot's initialisation, and logits instead of radial basis functions.
`lenet5.paper` undoes all of them and has the paper's 60,000 trainable parameters. What differs from the paper in it:
- The logits are the distances with their sign turned, so that softmax cross-entropy is the paper's second criterion (section
  II.C, equation 9) without the constant in its logarithm, which keeps classes that are far off already from being pushed on.
- The bitmaps are drawn anew in the manner of figure 3. For other than ten classes the codes are drawn at random, from a fixed
  seed: the paper says that one might do so.
- Biases start like weights (appendix A: within 2.4 / fan-in of 0), since the paper counts them among a unit's connections.
Images of 28 pixels (MNIST as published) get the two pixels of padding that the paper's 32x32 frame gives them. From images
larger than 32, S4 is averaged down to 5x5, so that C5 keeps its size.
"""

from collections import OrderedDict
from itertools import groupby
from random import Random

import torch
from torch import Tensor, nn

from convatlas.layers.network import Network, Request, classifier

PUBLISHED_SIZE = 32
MAP_BEFORE_C5 = 5


class LeNet5(Network):
    """Two stages of convolution and subsampling, three fully connected layers (figure 2)."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        request.no_drop_path("LeNet-5")
        self.stem = nn.Identity()
        self.stages = nn.Sequential(
            _stage(request.in_chans, 6, padding=_frame(request)),
            _stage(6, 16, padding=0),
        )
        self.head = nn.Sequential(
            OrderedDict(
                pool=_pool(request),
                c5=nn.Conv2d(16, 120, MAP_BEFORE_C5),
                tanh5=nn.Tanh(),
                flatten=nn.Flatten(),
                f6=nn.Linear(120, 84),
                tanh6=nn.Tanh(),
                dropout=request.dropout(0.0),
                classifier=classifier(84, request.num_classes),
            )
        )
        initialise(self)


def initialise(network: nn.Module) -> None:
    """Glorot & Bengio 2010: for tanh. The paper draws from [-2.4 / fan_in, 2.4 / fan_in] for its scaled tanh."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _frame(request: Request) -> int:
    """Pixels that C1 adds on each side."""
    return 2 if request.image_size == PUBLISHED_SIZE - 4 else 0


def _pool(request: Request) -> nn.Module:
    """What makes S4 as large as C5 sees it."""
    return nn.Identity() if request.image_size <= PUBLISHED_SIZE else nn.AdaptiveAvgPool2d(MAP_BEFORE_C5)


def _stage(in_channels: int, out_channels: int, *, padding: int) -> nn.Sequential:
    """A 5x5 convolution (C1, C3) and 2x2 average pooling (S2, S4)."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, 5, padding=padding),
            tanh=nn.Tanh(),
            pool=nn.AvgPool2d(2),
        )
    )


# The network as published

AMPLITUDE, SLOPE = 1.7159, 2 / 3
"""The squashing function's constants: with them f(1) = 1 and f(-1) = -1 (appendix A)."""

TABLE_I: tuple[tuple[int, ...], ...] = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),  # three in a row, around the end
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),  # four in a row
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),  # four, not in a row
    (0, 1, 2, 3, 4, 5),
)
"""For each of C3's maps in order, the maps of S2 that it sees."""

BITMAPS = """
..###.. ...#... ..###.. .#####. .....#. ####### ...###. ####### ..###.. ..###..
.#...#. ..##... .#...#. #.....# ....##. #...... ..#.... ......# .#...#. .#...#.
#.....# .#.#... #.....# ......# ...#.#. #...... .#..... ......# #.....# #.....#
#.....# #..#... #.....# ......# ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# .....#. .#...#. #...... #...... .....#. .#...#. #.....#
#.....# ...#... .....#. ..###.. .#...#. #####.. #.###.. ....#.. ..###.. .#....#
#.....# ...#... ....#.. .....#. #....#. .....#. ##...#. ...#... .#...#. ..###.#
#.....# ...#... ...#... ......# #....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# ####### ......# #.....# ..#.... #.....# ......#
#.....# ...#... .#..... ......# .....#. ......# #.....# ..#.... #.....# .....#.
.#...#. ...#... #...... #.....# .....#. #....#. .#...#. .#..... .#...#. ....#..
..###.. .#####. ####### .#####. .....#. .####.. ..###.. .#..... ..###.. .###...
"""
"""The digits from 0 to 9 on 7x12 pixels, side by side: the codes of ten classes, +1 for ink and -1 for paper."""

CODE_LENGTH = 84
CODES_SEED = 1998


class LeNet5Paper(Network):
    """The network of figure 2 with sparse C3, trainable subsampling, scaled tanh and radial basis functions (section II.B)."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        request.no_drop_path("LeNet-5")
        self.stem = nn.Identity()
        self.stages = nn.Sequential(
            _published_stage(nn.Conv2d(request.in_chans, 6, 5, padding=_frame(request)), 6),
            _published_stage(SparseConvolution(TABLE_I), 16),
        )
        self.head = nn.Sequential(
            OrderedDict(
                pool=_pool(request),
                c5=nn.Conv2d(16, 120, MAP_BEFORE_C5),
                squash5=Squash(),
                flatten=nn.Flatten(),
                f6=nn.Linear(120, CODE_LENGTH),
                squash6=Squash(),
                dropout=request.dropout(0.0),
                classifier=RadialBasis(class_codes(request.num_classes)) if request.num_classes else nn.Identity(),
            )
        )
        for module in self.modules():
            _initialise_as_published(module)


def _published_stage(conv: nn.Module, channels: int) -> nn.Sequential:
    """A convolution (C1, C3) and subsampling (S2, S4), each followed by the squashing function."""
    return nn.Sequential(OrderedDict(conv=conv, squash=Squash(), subsampling=Subsampling(channels)))


class Squash(nn.Module):
    """1.7159 tanh(2a / 3), of any shape (appendix A)."""

    def forward(self, a: Tensor) -> Tensor:
        """The squashed a."""
        return AMPLITUDE * torch.tanh(SLOPE * a)


class Subsampling(nn.Module):
    """S2 and S4: (N, C, H, W) -> (N, C, H / 2, W / 2), with two parameters a map (section II.B)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.coefficient = Coefficient(channels, inputs=4)
        self.squash = Squash()

    def forward(self, x: Tensor) -> Tensor:
        """The four inputs added, times the map's coefficient, plus its bias, squashed."""
        out: Tensor = self.squash(self.coefficient(self.pool(x)))
        return out


class Coefficient(nn.Module):
    """For each map, the sum of `inputs` values from their mean, times a coefficient, plus a bias: (N, C, H, W) -> the same."""

    def __init__(self, channels: int, *, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, mean: Tensor) -> Tensor:
        """weight * (inputs * mean) + bias."""
        return self.weight.view(-1, 1, 1) * (self.inputs * mean) + self.bias.view(-1, 1, 1)


class SparseConvolution(nn.Module):
    """A 5x5 convolution whose maps see some of the input's maps only: (N, C, H, W) -> (N, len(table), H - 4, W - 4).

    `table` lists for each map the maps that it sees. Neighbours that see equally many are one grouped convolution over a
    selection of the input's maps, so that only connections that exist hold a weight and cost a multiplication.
    """

    def __init__(self, table: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        runs = [list(run) for _, run in groupby(table, key=len)]
        self.seen = tuple(tuple(source for sources in run for source in sources) for run in runs)
        self.convs = nn.ModuleList(nn.Conv2d(len(run) * len(run[0]), len(run), 5, groups=len(run)) for run in runs)

    def forward(self, x: Tensor) -> Tensor:
        """The maps in the order of the table."""
        maps = x.chunk(x.shape[1], dim=1)
        selections = (torch.cat([maps[source] for source in seen], dim=1) for seen in self.seen)
        return torch.cat([conv(selected) for conv, selected in zip(self.convs, selections, strict=True)], dim=1)


class RadialBasis(nn.Module):
    """The output layer: (N, 84) -> (N, classes), for each class minus the squared distance to its code (equation 7).

    `weight` holds the codes, (classes, 84). It is a buffer: the paper keeps them fixed.
    """

    weight: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", codes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits. Where x has few bits (autocast), the float32 codes lift the differences and their sum to float32."""
        return -(x.unsqueeze(1) - self.weight).square().sum(2)


def class_codes(num_classes: int) -> Tensor:
    """(num_classes, 84) of +1 and -1: for ten classes the bitmaps, row by row; otherwise drawn at random, always the same."""
    if num_classes == 10:
        digits = zip(*(line.split() for line in BITMAPS.split("\n") if line), strict=True)
        return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in "".join(rows)] for rows in digits])
    draw = Random(CODES_SEED)
    codes = (draw.getrandbits(CODE_LENGTH) for _ in range(num_classes))
    return torch.tensor([[1.0 if code >> bit & 1 else -1.0 for bit in range(CODE_LENGTH)] for code in codes])


def _initialise_as_published(module: nn.Module) -> None:
    """Weights and bias uniform within 2.4 / fan-in of 0 (appendix A)."""
    match module:
        case nn.Conv2d() | nn.Linear():
            fan_in = module.weight[0].numel()
        case Coefficient():
            fan_in = module.inputs
        case _:
            return
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in)
