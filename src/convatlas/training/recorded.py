"""A training step recorded as a CUDA graph: on a GPU, launching a small network's kernels takes longer than computing them.

Source: NVIDIA's CUDA graphs, as PyTorch's notes on CUDA semantics describe them ("CUDA Graphs", whole-network capture).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from convatlas.errors import first_line

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Learns from images (N, C, H, W) and labels (N,) or their shares (N, classes); returns the mean loss and how many were
called right, on the device."""
Work = Callable[[], tuple[Tensor, Tensor]]
Record = Callable[[Work], tuple[tuple[Tensor, Tensor], Callable[[], None]]]
"""Records the work without doing it; returns where its results will be, and what does it."""
AS_IT_STANDS = 3
"""Steps of each shape before one is recorded: real ones, in which libraries choose their kernels and the optimizer its memory."""


@dataclass(frozen=True)
class _Recording:
    """A recorded step: where it reads its batch, where its results are, and what does it once."""

    x: Tensor
    y: Tensor
    results: tuple[Tensor, Tensor]
    replay: Callable[[], None]


class Recorded:
    """`step` on batches of few shapes: of each shape the first as it stands, then one is recorded and from then on replayed.

    `step` must wait for nothing on the device, and whatever it reads of the host but the learning rates stays as it was when it
    was recorded. Where recording fails, `note` is told why and `step` goes on as it stands.
    """

    def __init__(self, step: Step, optimizer: Optimizer, *, note: Callable[[str], None], record: Record | None = None) -> None:
        self._step, self._optimizer, self._note = step, optimizer, note
        self._stream = torch.cuda.Stream() if record is None else None  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle() if record is None else None
        self._record = record or self._graph
        self._rates: list[Tensor] = []
        self._done: dict[tuple[int, ...], int] = {}
        self._recordings: dict[tuple[int, ...], _Recording] = {}
        self._works = True

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One step. The results are overwritten by the next one."""
        shape = tuple(x.shape)
        self._done[shape] = self._done.get(shape, 0) + 1
        if self._works and self._done[shape] == AS_IT_STANDS + 1:
            self._try_recording(x, y)
        recording = self._recordings.get(shape)
        if recording is None:
            return self._aside(lambda: self._step(x, y))
        recording.x.copy_(x)
        recording.y.copy_(y)
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        recording.replay()
        return recording.results

    def _try_recording(self, x: Tensor, y: Tensor) -> None:
        here_x, here_y = x.clone(), y.clone()
        if not self._rates:
            self._rates = [torch.zeros((), device=x.device) for _ in self._optimizer.param_groups]

        def work() -> tuple[Tensor, Tensor]:
            with self._told_on_the_device():
                return self._step(here_x, here_y)

        try:
            results, replay = self._record(work)
        except RuntimeError as error:  # whatever the network does that cannot be recorded
            self._works = False
            self._note(f"the step could not be recorded ({first_line(error)}): kernels are launched one by one")
            return
        self._recordings[tuple(x.shape)] = _Recording(here_x, here_y, results, replay)

    @contextmanager
    def _told_on_the_device(self) -> Iterator[None]:
        """Learning rates are tensors on the device meanwhile, so that a replayed step has new ones: "capturable", for Adam."""
        before: list[dict[str, Any]] = []
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            before.append({key: group[key] for key in ("lr", "capturable") if key in group})
            group.update({"lr": rate} | ({"capturable": True} if "capturable" in group else {}))
        try:
            yield
        finally:
            for kept, group in zip(before, self._optimizer.param_groups, strict=True):
                group.update(kept)

    def _graph(self, work: Work) -> tuple[tuple[Tensor, Tensor], Callable[[], None]]:
        """The work as a CUDA graph. All of a run's share their memory: nothing of one is needed once it has been replayed."""
        self._optimizer.zero_grad()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            results = work()
        return results, graph.replay

    def _aside(self, work: Work) -> tuple[Tensor, Tensor]:
        """The work on the stream on which it will be recorded, as PyTorch demands of what comes before a recording."""
        if self._stream is None:
            return work()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            results = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return results
