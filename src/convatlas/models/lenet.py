"""LeNet-5 (1998): convolution, subsampling, and weights learnt end to end.

Paper: LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE
86(11), 1998, section II.B and figure 2.

    stem     none: the first convolution is already the first stage (nn.Identity)
    stages   C1 (6 maps, 5x5) and S2; C3 (16 maps, 5x5) and S4
    head     C5 (120 units that see all of S4), F6 (84 units), output

Departures of `lenet5`, the form in which it is taught today (61,706 parameters with one input channel and ten classes):
- C3 sees all six maps of S2 (the paper's table I connects each of its maps to three, four or six of them).
- S2 and S4 average without trainable coefficient and bias, and no squashing function follows them.
- Plain tanh instead of 1.7159 tanh(2x / 3), and logits instead of radial basis functions.
Images of 28 pixels (MNIST as published) get the two pixels of padding that the paper's 32x32 frame gives them. From images
larger than 32, S4 is averaged down to 5x5, so that C5 keeps its size.
"""

from collections import OrderedDict

from torch import nn

from convatlas.layers.network import Network, Request, classifier

PUBLISHED_SIZE = 32
MAP_BEFORE_C5 = 5


class LeNet5(Network):
    """Two stages of convolution and subsampling, three fully connected layers (figure 2)."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        request.no_drop_path("LeNet-5")
        self.stem = nn.Identity()
        padding = 2 if request.image_size == PUBLISHED_SIZE - 4 else 0
        self.stages = nn.Sequential(
            _stage(request.in_chans, 6, padding=padding),
            _stage(6, 16, padding=0),
        )
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.Identity() if request.image_size <= PUBLISHED_SIZE else nn.AdaptiveAvgPool2d(MAP_BEFORE_C5),
                c5=nn.Conv2d(16, 120, MAP_BEFORE_C5),
                tanh5=nn.Tanh(),
                flatten=nn.Flatten(),
                f6=nn.Linear(120, 84),
                tanh6=nn.Tanh(),
                dropout=request.dropout(0.0),
                classifier=classifier(84, request.num_classes),
            )
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                # Glorot & Bengio 2010: for tanh. The paper draws from [-2.4 / fan_in, 2.4 / fan_in] for its scaled tanh.
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _stage(in_channels: int, out_channels: int, *, padding: int) -> nn.Sequential:
    """A 5x5 convolution (C1, C3) and 2x2 average pooling (S2, S4)."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, 5, padding=padding),
            tanh=nn.Tanh(),
            pool=nn.AvgPool2d(2),
        )
    )
