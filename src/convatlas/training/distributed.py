"""Several processes train one network: each takes its share of every batch, and gradients are averaged before each update.

`torchrun` starts the processes and says in the environment who is who. They talk by gloo on processors and by NCCL on GPUs; what
is small and lies on the processor always goes by gloo, so that nothing waits for a GPU. The first process leads: it alone writes
the run folder and speaks. (Goyal et al. 2017, "Accurate, Large Minibatch SGD", arXiv:1706.02677, section 3, has the arithmetic.)

Gradients go in one piece, in the order of the parameters. DistributedDataParallel would send them in pieces during the backward
pass, but arranges the pieces anew after its first step: with three processes or more the sums then differ in their last bits
between a resumed run and an unbroken one.

When a process fails it leaves its reason in the store that torchrun keeps, and ends; the others then meet a broken connection,
find the reason there, and end as well.
"""

import ctypes
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from convatlas.errors import UserError, first_line
from convatlas.records.engine import Reason
from convatlas.records.run import Choices, Recipe

if TYPE_CHECKING:  # torch.distributed has these names too, but does not tell type checkers
    from torch._C._distributed_c10d import PrefixStore, Store
else:
    from torch.distributed import PrefixStore, Store

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: the first may be trying what is fastest. One that dies is noticed at once."""
ALL_STARTED_WITHIN = timedelta(minutes=5)
LEADER_SPEAKS_WITHIN = timedelta(seconds=5)
"""A mistake that all processes find, the first one says; the others wait so long before they do."""
REASON_WITHIN = timedelta(seconds=2)
PR_SET_PDEATHSIG = 1
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""What torchrun sets for each process."""


@dataclass(frozen=True)
class World:
    """The processes that train together: this one is `rank` (from 0) of `ranks`. A lone one has nobody to ask."""

    rank: int = 0
    ranks: int = 1
    store: Store | None = field(default=None, compare=False, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process; all get the same answer."""
        if self.ranks == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def agreed(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, in all of them; the others wait for it and do not call theirs."""
        if self.ranks == 1:
            return make()
        values: list[Any] = [make() if self.leads else None]
        dist.broadcast_object_list(values)
        made: T = values[0]
        return made

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        if self.ranks == 1:
            return [value]
        values: list[Any] = [None] * self.ranks
        dist.all_gather_object(values, value)
        return values

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.ranks > 1:
            tensor = tensor.contiguous().clone()
            dist.all_reduce(tensor)
        return tensor

    def share(self, n: int) -> range:
        """Which of n things are this process's: a contiguous share."""
        return range(n * self.rank // self.ranks, n * (self.rank + 1) // self.ranks)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make every gradient its mean over all processes."""
        if self.ranks == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        flat = torch.cat([each.reshape(-1) for each in gradients])
        dist.all_reduce(flat)
        flat /= self.ranks
        for gradient, mean in zip(gradients, torch.split(flat, [each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def average_statistics(self, model: nn.Module) -> None:
        """Make BatchNorm's running statistics their means over all processes."""
        if self.ranks == 1:
            return
        for norm in model.modules():
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None:
                for statistic in (norm.running_mean, norm.running_var):
                    statistic.copy_(self.total(statistic) / self.ranks)

    def equalise(self, model: nn.Module) -> None:
        """Give all processes the first one's weights: what another machine computes may differ in its last bits."""
        if self.ranks > 1:
            model.load_state_dict(self.agreed(model.state_dict))

    def seed_apart(self, seed: int) -> None:
        """Let every process but the first draw random numbers of its own from here on (dropout); the first goes on as it was."""
        if not self.leads:
            digest = hashlib.blake2b(f"{seed}/process {self.rank}".encode(), digest_size=8).digest()
            torch.manual_seed(int.from_bytes(digest, "little") >> 1)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Turn a connection that broke, because another process has ended, into the UserError that it ended with."""
        try:
            yield
        except RuntimeError as error:
            if self.store is None or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise self._reason(self.store, error) from error

    def _reason(self, store: Store, error: RuntimeError) -> UserError:
        if _comes(store, "failed", REASON_WITHIN):
            what, fix = store.get("failed").decode().split("\n")
            return UserError(what, fix=fix)
        if "NCCL" in str(error):  # which the GPUs may be the cause of as well; its last line says what it is
            said = str(error).strip().split("\n")[-1].strip()
            return UserError(f"another process has ended, or NCCL failed: {said}", fix="Give NCCL_DEBUG=WARN to be told more.")
        return UserError("another process has ended", fix="If it was killed, torchrun says so; go on with --resume.")

    def fail(self, error: BaseException) -> None:
        """Leave for the others why this process ends; the first to do so is heard."""
        if self.store is not None:
            other = UserError(f"process {self.rank} failed: {first_line(error)}", fix="What it wrote itself says more.")
            reason = error if isinstance(error, UserError) else other
            self.store.compare_set("failed", "", f"{reason.what}\n{reason.fix}")

    def speaks(self) -> bool:
        """Whether it is for this process to say why all end: for the first, unless it does not get to it in time."""
        if self.store is None:
            return True
        if not self.leads and _comes(self.store, "done", LEADER_SPEAKS_WITHIN):
            time.sleep(1)  # torchrun ends all as soon as one is gone: let that be the first
            return False
        return self.store.add("said", 1) == 1


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun started, with this one among them; without torchrun, or with one process, it is alone.

    Each process takes the GPU of its number on this machine. The first leaves first, so that whatever it still writes or says is
    done before torchrun sees anybody gone. Raises UserError when the processes do not find each other.
    """
    if not all(name in os.environ for name in NAMES) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    world = _join()
    assert world.store is not None
    try:
        yield world
    except BaseException as error:
        world.fail(error)
        if world.leads:
            world.store.set("done", "")
        raise
    if world.leads:
        world.store.set("done", "")
    else:
        _comes(world.store, "done", PATIENCE)
    dist.destroy_process_group()


def _end_with_torchrun() -> None:
    """Have the kernel send SIGTERM if torchrun is killed, which ends the run in order; only Linux knows how."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _join() -> World:
    _end_with_torchrun()
    cuda = torch.cuda.is_available() and int(os.environ["LOCAL_RANK"]) < torch.cuda.device_count()
    try:
        store, rank, ranks = next(iter(rendezvous("env://", timeout=ALL_STARTED_WITHIN)))
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        fix = "Start them with `torchrun --nproc-per-node 2 -m convatlas train ...`."
        raise UserError(f"the processes do not find each other: {first_line(error)}", fix=fix) from None
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return World(rank, ranks, PrefixStore("convatlas", store))


def _comes(store: Store, key: str, within: timedelta) -> bool:
    """Whether `key` is in the store, or comes within that time."""
    try:
        store.wait([key], within)
    except dist.DistError:  # it did not, or whoever kept the store has gone
        return False
    return True


def own_threads() -> int:
    """How many threads one of torchrun's processes takes: its share of the cores, at least one.

    torchrun itself would give each a single thread, unless OMP_NUM_THREADS says otherwise; then that stands.
    """
    if os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return torch.get_num_threads()
    return max((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])), 1)


def check_shared(recipe: Recipe, choices: Choices, *, images: int, world: World) -> None:
    """Raise a UserError if the processes cannot share this recipe's batches of `images` training images."""
    ranks, size = world.ranks, recipe.batch_size
    if ranks == 1:
        return
    if recipe.minutes is not None:
        raise UserError(f"the budget is in minutes, and {ranks} processes have {ranks} clocks", fix="Give --epochs.")
    if images < ranks:
        raise UserError(f"there are {ranks} processes and {images} training images", fix=f"Start {images} processes or fewer.")
    if size % ranks:
        fix = f"Give --batch-size {max(size // ranks, 1) * ranks}, or another multiple of {ranks}."
        raise UserError(f"batches of {size} images cannot be shared by {ranks} processes", fix=fix)
    if size < 2 * ranks and not recipe.sync_batchnorm:
        what = f"{ranks} processes have one image each of a batch of {size}, and BatchNorm needs two"
        raise UserError(what, fix="Start fewer processes, or give --sync-batchnorm.")
    if recipe.compile == "on" and recipe.sync_batchnorm:
        raise UserError("synchronised BatchNorm cannot be compiled", fix="Leave --compile or --sync-batchnorm out.")
    if recipe.compile == "graphs":
        raise UserError("steps of several processes cannot be recorded as CUDA graphs", fix="Leave --compile graphs out.")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    if choices.device == "cuda" and here > torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        raise UserError(f"there are {here} processes and {gpus} GPUs here", fix=f"Start {gpus}, or give --device cpu.")


def uncompiled(recipe: Recipe, world: World) -> Recipe:
    """The recipe as far as the engine may try it: a pass that stops at each BatchNorm to talk is not compiled."""
    return replace(recipe, compile="off") if world.ranks > 1 and recipe.sync_batchnorm else recipe


def shared_choices(choices: Choices, world: World) -> Choices:
    """The choices with the number of processes among them."""
    if world.ranks == 1:
        return choices
    reason = Reason("processes", str(world.ranks), "as torchrun started; each takes its share of every batch")
    explained = because(choices, "threads", "this process's share of the cores, unless --threads says otherwise")
    return replace(explained, processes=world.ranks, reasons=(*explained.reasons, reason))


def because(choices: Choices, about: str, why: str) -> Choices:
    """The choices with another reason for the one `about` something."""
    reasons = tuple(replace(each, why=why) if each.about == about else each for each in choices.reasons)
    return replace(choices, reasons=reasons)
