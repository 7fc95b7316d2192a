"""Where the processes of a study run: on this machine, or on a Ray cluster. The scheduler sees no difference."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from convatlas.errors import UserError
from convatlas.study.folder import Job
from convatlas.study.worker import STARTED_BY_SCHEDULER

NAMES = ("local", "ray")
LOG = "log.txt"
LONGEST_LOG = 1_000_000
"""Bytes; a log that has grown beyond it is begun anew."""


@dataclass(frozen=True)
class Order:
    """A process that is to do a job: its command, what it sets in the environment, and where what it says goes."""

    job: Job
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path


class Engine(Protocol):
    """Runs processes, `slots` of them at once."""

    slots: int

    def start(self, order: Order) -> None:
        """Start the process."""

    def ended(self) -> list[tuple[Order, int]]:
        """The processes that have ended since the last call, with their exit codes: -N for one that signal N killed."""
        ...

    def stop(self) -> None:
        """Ask all processes to save and end."""

    def kill(self) -> None:
        """End all processes at once."""


@dataclass(frozen=True)
class Means:
    """What all jobs of a study are given: where the data are, files of code that may be run, threads and processes of a run."""

    data_root: Path | None = None
    code: tuple[Path, ...] = ()
    threads: int = 1
    processes: int = 1


def ordered(job: Job, folder: Path, means: Means) -> Order:
    """The order for a job: the hidden command `convatlas study work`, by torchrun if the run takes several processes."""
    threads = str(means.threads)
    seed = "tuning" if job.seed is None else str(job.seed)
    words = ["-m", "convatlas", "study", "work", str(folder.resolve()), job.variant, seed, "--threads", threads]
    if means.data_root is not None:
        words += ["--data-root", str(means.data_root.resolve())]
    for path in means.code:
        words += ["--code", str(path)]
    if means.processes > 1 and job.seed is not None:
        several = ["--standalone", "--nproc-per-node", str(means.processes)]
        words = ["-m", "torch.distributed.run", *several, *words]
    environment = {STARTED_BY_SCHEDULER: "1", "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    return Order(job, (sys.executable, *words), environment, folder / job.claim / LOG)


@dataclass
class Local:
    """Processes of this machine. On a machine with GPUs each gets one, in turn."""

    slots: int
    gpus: Sequence[str] = ()
    running: dict[int, tuple[Order, subprocess.Popen[bytes]]] = field(default_factory=dict)

    def start(self, order: Order) -> None:
        """Start the process in the first free slot; it says what it says to its log."""
        slot = next(i for i in range(self.slots) if i not in self.running)
        chosen = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        self.running[slot] = (order, started(order, chosen))

    def ended(self) -> list[tuple[Order, int]]:
        """Those that have ended, with their exit codes."""
        done = {slot: code for slot, (_, process) in self.running.items() if (code := process.poll()) is not None}
        return [(self.running.pop(slot)[0], code) for slot, code in done.items()]

    def stop(self) -> None:
        """SIGTERM to each."""
        for _, process in self.running.values():
            process.terminate()

    def kill(self) -> None:
        """SIGKILL to each and all that it has started."""
        for _, process in self.running.values():
            killed(process)


def started(order: Order, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The order's process, in a group of its own, with a pipe for standard input that closes when this process ends."""
    order.log.parent.mkdir(parents=True, exist_ok=True)
    long = order.log.exists() and order.log.stat().st_size > LONGEST_LOG
    with order.log.open("wb" if long else "ab") as log:
        return subprocess.Popen(
            order.command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **order.environment, **more},
            start_new_session=True,
        )


def killed(process: subprocess.Popen[bytes]) -> None:
    """End the process and all of its group at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def engine_called(name: str, *, jobs: int | None, threads: int, processes: int, address: str | None) -> Engine:
    """The engine called `name`; `jobs` at once (None: as many as there are processors or GPUs for). Raises UserError."""
    if name not in NAMES:
        raise UserError(f"there is no engine called {name!r}", fix=f"Choose {' or '.join(NAMES)}.")
    if jobs is not None and not 1 <= jobs <= 10_000:
        raise UserError(f"--jobs is {jobs}", fix="Give a whole number of 1 or more.")
    if name == "ray":
        from convatlas.study.ray_engine import RayEngine

        return RayEngine.joined(address, jobs=jobs, cores=threads * processes)
    if address is not None:
        raise UserError("--address is for the engine ray", fix="Leave it out, or give --engine ray.")
    import torch

    gpus = tuple(str(i) for i in range(torch.cuda.device_count()))
    room = len(gpus) or max(1, (os.cpu_count() or 1) // (threads * processes))
    return Local(jobs or room, gpus)
