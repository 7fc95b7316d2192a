"""Loss and hits of an epoch, kept where the network is, so that the processor need not wait for a device at each step."""

import torch
from torch import Tensor


class Meter:
    """Sums over an epoch: `loss_sum` in nats and `correct`, on `device`; read back only when somebody wants to know."""

    def __init__(self, loss_sum: float, correct: int, *, device: str) -> None:
        self._loss = torch.tensor(loss_sum, dtype=torch.float64, device=device)
        self._correct = torch.tensor(correct, device=device)

    def add(self, loss: Tensor, hits: Tensor, n: int) -> None:
        """Take in the mean `loss` of a batch of n images, and how many of them were called right."""
        self._loss += loss * n
        self._correct += hits

    def read(self) -> tuple[float, int]:
        """The sums so far. On a GPU this waits for all that was asked of it."""
        return self._loss.item(), int(self._correct.item())
