"""Networks of nobody's library, each with something that a ledger must not trip over."""

import torch
import torch.nn.functional as F
from torch import nn


class Functional(nn.Module):
    """Convolutions and a linear map called as functions, with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(8, 3, 3, 3))
        self.depthwise = nn.Parameter(torch.ones(8, 1, 5, 5))
        self.matrix = nn.Parameter(torch.ones(10, 8))

    def forward(self, x):
        x = F.relu(F.conv2d(x, self.kernel, stride=2, padding=1))
        x = F.conv2d(x, self.depthwise, padding=2, groups=8)
        return F.linear(x.mean((2, 3)), self.matrix)


class ChannelsLast(nn.Module):
    """A block that works on (N, H, W, C), and scales by a parameter."""

    def __init__(self):
        super().__init__()
        self.spatial = nn.Conv2d(3, 6, 3, padding=1, groups=3)
        self.norm, self.expand, self.project = nn.LayerNorm(6), nn.Linear(6, 24), nn.Linear(24, 6)
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        x = self.spatial(x)
        y = x.permute(0, 2, 3, 1)
        y = self.scale * self.project(F.gelu(self.expand(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class Decoder(nn.Module):
    """Grouped transposed convolutions, uneven on purpose."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 4, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, (4, 3), stride=2, padding=1, output_padding=(0, 1), groups=2)

    def forward(self, x):
        return self.up(self.down(x))


class Attending(nn.Module):
    """Patches, attention between them, by torch's module."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, stride=8)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)


class Products(nn.Module):
    """einsum, matmul and bmm with parameters and with maps."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.ones(5, 3))
        self.conv = nn.Conv2d(5, 4, 1)

    def forward(self, x):
        x = self.conv(torch.einsum("oc,nchw->nohw", self.mix, x))
        rows = x.flatten(2)
        return torch.bmm(rows, rows.transpose(1, 2)) @ torch.ones(4, 2, device=x.device)


class Shared(nn.Module):
    """One convolution passed twice, another whose weights are computed from a parameter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.raw = nn.Parameter(torch.ones(4, 3, 3, 3))

    def forward(self, x):
        x = self.conv(F.relu(self.conv(x)))
        return F.conv2d(x, torch.tanh(self.raw).view(4, 3, 3, 3), dilation=2)


class Halved(torch.autograd.Function):
    """An operation of one's own, with its own gradient."""

    @staticmethod
    def forward(ctx, x):
        return x / 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


class OwnGradient(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(Halved.apply(self.conv(x)).mean((2, 3)))


class ByKeyword(nn.Module):
    """Modules called by keyword, and views taken by attribute."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, (1, 5), stride=(1, 2)), nn.MaxPool2d(3, 2, 1, ceil_mode=True)

    def forward(self, x):
        return self.pool(input=self.conv(input=x)).mT


class Sequences(nn.Module):
    """One-dimensional convolutions over rows."""

    def __init__(self):
        super().__init__()
        self.conv, self.pool = nn.Conv1d(3, 8, 5, stride=2, groups=1), nn.AvgPool1d(2)

    def forward(self, x):
        return self.pool(self.conv(x.mean(2)))


class Recurring(nn.Module):
    """A loop over the rows of the image's shape, which is no decision by values."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        for _ in range(x.shape[-1] // 16):
            x = x + self.cell(x)
        return x


class Remembering(nn.Module):
    """A recurrent layer: its first step multiplies a state that no pixel has touched."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(48, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.gru(x.mean(1))[0].mean(1))


class Positioned(nn.Module):
    """A table of positions that goes through a layer of its own, and a weight that is computed (weight norm)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
        self.table, self.mix = nn.Parameter(torch.ones(6, 4)), nn.Linear(4, 4)

    def forward(self, x):
        return self.conv(x) + self.mix(self.table).mean(0).view(1, 4, 1, 1)


STRANGERS = {
    "remembering": Remembering,
    "positioned": Positioned,
    "functional": Functional,
    "channels last": ChannelsLast,
    "decoder": Decoder,
    "attention": Attending,
    "products": Products,
    "shared": Shared,
    "own gradient": OwnGradient,
    "by keyword": ByKeyword,
    "sequences": Sequences,
    "recurring": Recurring,
}


class Decides(nn.Module):
    """Data-dependent control flow."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

    def forward(self, x):
        return self.a(x) if x.mean() > 0 else self.b(x)


class PicksByMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        return x[x > 0]


class OwnNumber(nn.Module):
    """A parameter of its own read as a Python number: no decision by the image, but no meta device either."""

    def __init__(self):
        super().__init__()
        self.conv, self.after, self.power = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.after(self.conv(x) * float(self.power))


class ThroughNumpy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.after, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), nn.Linear(2, 2)

    def forward(self, x):
        x = torch.from_numpy(self.conv(x).detach().numpy()[:, :, ::-1].copy())
        return self.head(self.after(x).mean((2, 3)))
