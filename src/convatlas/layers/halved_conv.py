"""A convolution before a 2x2 pooling, which computes no more than the pooling reads."""

import torch.nn.functional as F
from torch import Tensor, nn


class HalvedConv2d(nn.Conv2d):
    """A convolution of stride 1 that leaves out the last row and column of odd maps, since 2x2 pooling drops them.

    (N, in, H, W) -> (N, out, H, W), less 1 where H or W is odd. Its padding, in numbers, keeps the size of even maps. Pooled, the
    map is what any other convolution's is; of a map of 7x7 a quarter of the work is saved.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The map, without an odd row or column."""
        height, width = input.shape[2:]
        if not (height % 2 or width % 2):
            return super().forward(input)
        assert not isinstance(self.padding, str)
        rows, columns = self.padding
        framed = F.pad(input, (columns, columns - width % 2, rows, rows - height % 2))
        return F.conv2d(framed, self.weight, self.bias)
