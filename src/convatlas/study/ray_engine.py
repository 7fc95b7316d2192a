"""The processes of a study on a Ray cluster: each is a task of Ray's that starts the same command as on one machine.

All machines must see the study's folder, and the data, at the same paths.
"""

import importlib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convatlas.errors import UserError, first_line
from convatlas.study.engines import Order, killed, started

SECONDS_TO_SAVE = 60.0
"""What a process may take to finish its step, save and end once it was asked to."""


@dataclass
class RayEngine:
    """Tasks of Ray's, `slots` of them at once, each with `cores` processors of its own."""

    slots: int
    cores: int
    ray: Any
    running: dict[Any, Order] = field(default_factory=dict)

    @classmethod
    def joined(cls, address: str | None, *, jobs: int | None, cores: int) -> "RayEngine":
        """The engine of the cluster at `address` (None: the one that this machine is part of, or one of this machine alone)."""
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError:
            raise UserError("the engine ray is not installed", fix="pip install 'convatlas[ray]'.") from None
        if not ray.is_initialized():
            try:
                ray.init(address=address or os.environ.get("RAY_ADDRESS"), log_to_driver=False, configure_logging=False)
            except Exception as error:  # ConnectionError, ValueError, RuntimeError, as the case may be
                raise UserError(f"no Ray cluster could be joined: {first_line(error)}", fix="Check --address.") from None
        room = int(ray.cluster_resources().get("CPU", 0)) // cores
        if room < 1:
            raise UserError(f"the Ray cluster has no {cores} processors for a run", fix="Lower `threads` or `processes`.")
        return cls(min(jobs or room, room), cores, ray)

    def start(self, order: Order) -> None:
        """Hand the order to Ray, which finds it a machine."""
        task = self.ray.remote(_obey).options(num_cpus=self.cores, max_retries=0)
        self.running[task.remote(order, str(Path.cwd()))] = order

    def ended(self) -> list[tuple[Order, int]]:
        """Those that have ended, with their exit codes; a machine that was lost counts as killed."""
        if not self.running:
            return []
        done, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        return [(self.running.pop(task), self._code(task)) for task in done]

    def _code(self, task: Any) -> int:
        try:
            return int(self.ray.get(task))
        except self.ray.exceptions.TaskCancelledError:
            return -15
        except self.ray.exceptions.RayTaskError as error:
            raise UserError(f"a task of Ray's failed: {first_line(error.cause)}", fix="See its log on the cluster.") from None
        except self.ray.exceptions.RayError:
            return -9

    def stop(self) -> None:
        """Ask all tasks to save and end."""
        for task in self.running:
            self.ray.cancel(task, force=False)

    def kill(self) -> None:
        """End all tasks at once."""
        for task in self.running:
            self.ray.cancel(task, force=True)


def _obey(order: Order, folder: str) -> int:
    """On a machine of the cluster: run the order's process in `folder` to its end and give its exit code."""
    os.chdir(folder)
    process = started(order, {})
    try:
        return process.wait()
    except BaseException:  # Ray raises KeyboardInterrupt here when the task is cancelled
        process.terminate()
        try:
            return process.wait(SECONDS_TO_SAVE)
        except subprocess.TimeoutExpired:
            killed(process)
            raise
