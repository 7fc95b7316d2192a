"""All jobs of a study, over as many processes as there is room for: each until it is done, or has failed twice.

Nothing is kept in memory that matters: what is done stands in the folder, so that a scheduler that was killed is simply started
again, and two of them on one study share the work.
"""

import signal
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from convatlas.records import codec, storage
from convatlas.records.plan import Attempt, StudyPlan
from convatlas.records.run import RunSummary
from convatlas.study.damage import AGAIN, damage, set_aside
from convatlas.study.engines import Engine, Means, Order, ordered
from convatlas.study.folder import TRIES, Job, attempts_at, failures_of, is_done, jobs_of, read_plan, searches_of
from convatlas.study.worker import BUSY
from convatlas.training.outcome import Stopped

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_UNTIL_ASKED_AGAIN = 2.0
"""A job that another scheduler's process is at work on is asked for again after that time."""
SECONDS_TO_SAVE = 60.0
STOPPED = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)


class StudyWatch(Protocol):
    """A listener of a study."""

    def running(self, jobs: list[Job], *, done: int, total: int) -> None:
        """Called several times a second with the jobs under way."""

    def job_done(self, job: Job, attempt: Attempt) -> None:
        """Called when a try at a job has ended, whatever its end."""

    def note(self, text: str) -> None:
        """Something that the user should know, in one sentence."""

    def stopping(self) -> bool:
        """Whether all processes should save and stop."""
        ...


def run_study(folder: Path, *, engine: Engine, watch: StudyWatch, means: Means, retry: bool = False) -> None:
    """Do every job of the study in `folder` that is not done: first the searches for settings, then the runs.

    A job that fails is tried once more, with `retry` also if it has failed twice before; a run whose records are damaged is left
    as it is, with `retry` it is set aside and made anew. Raises Stopped when the watcher asks.
    """
    plan = read_plan(folder)
    for jobs in (searches_of(plan), jobs_of(plan)):
        shift = _Shift(folder, plan, engine, watch, means)
        if retry:
            shift.renew(jobs)
        try:
            shift.work(jobs)
        finally:
            shift.leave()


class _Shift:
    """One stretch of work on some jobs, of which those are left out whose search has failed."""

    def __init__(self, folder: Path, plan: StudyPlan, engine: Engine, watch: StudyWatch, means: Means) -> None:
        self.folder, self.plan, self.engine, self.watch, self.means = folder, plan, engine, watch, means
        self.waiting: deque[Job] = deque()
        self.active: dict[Job, str] = {}
        self.not_before: dict[Job, float] = {}

    def work(self, jobs: list[Job]) -> None:
        """Until each is done or has failed for good."""
        self.waiting.extend(job for job in jobs if self._open(job))
        for job in jobs:
            if (broken := damage(self.folder, self.plan, job)) is not None:
                self.watch.note(f"{broken}. {AGAIN}")
        total = len(jobs)
        while self.waiting or self.active:
            if self.watch.stopping():
                self._stop()
            self._fill()
            for order, code in self.engine.ended():
                self._close(order, code)
            self.watch.running(list(self.active), done=total - len(self.waiting) - len(self.active), total=total)
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def renew(self, jobs: list[Job]) -> None:
        """Give jobs that have failed for good new tries, and those whose records are damaged a new beginning."""
        for job in jobs:
            broken = damage(self.folder, self.plan, job)
            if broken is not None:
                set_aside(self.folder, job)
                self.watch.note(f"{broken}: set aside, and made anew")
            if broken is not None or failures_of(self.folder, job):
                self._keep(job, _now(), "renewed", None)

    def leave(self) -> None:
        """Let no process outlive the scheduler."""
        if self.active:
            self.engine.kill()

    def _open(self, job: Job) -> bool:
        """Whether something is left to do, and to be hoped, for the job."""
        if is_done(self.folder, self.plan, job) or len(failures_of(self.folder, job)) >= TRIES:
            return False
        if damage(self.folder, self.plan, job) is not None:
            return False
        search = Job(job.variant, None)
        return self.plan.tuning is None or job.seed is None or is_done(self.folder, self.plan, search)

    def _fill(self) -> None:
        """Start what there is room for, leaving out what another process was at work on a moment ago."""
        for job in list(self.waiting):
            if len(self.active) >= self.engine.slots:
                return
            if self.not_before.get(job, 0.0) > time.monotonic():
                continue
            self.waiting.remove(job)
            if not self._open(job):  # another scheduler has done it meanwhile
                continue
            self.active[job] = _now()
            self.engine.start(ordered(job, self.folder, self.means))

    def _close(self, order: Order, code: int) -> None:
        """What the end of a process means for its job."""
        job, begun = order.job, self.active.pop(order.job)
        if code == BUSY or (code not in (0, *STOPPED) and storage.is_held(self.folder / job.claim)):
            self.not_before[job] = time.monotonic() + SECONDS_UNTIL_ASKED_AGAIN
            self.waiting.append(job)
            return
        if code == 0:
            attempt = self._keep(job, begun, "finished", None)
        elif code in STOPPED:  # by someone else than us: it is not the run's fault
            attempt = self._keep(job, begun, "stopped", None)
            self.waiting.append(job)
        else:
            attempt = self._keep(job, begun, "failed", self._cause(order, code))
            if self._open(job):
                self.waiting.append(job)
        self.watch.job_done(job, attempt)

    def _cause(self, order: Order, code: int) -> str:
        """Why a process failed: what the run's record says, or else the last that it said itself."""
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return "it was killed (signal 9), as systems do that run out of memory"
        path = self.folder / order.job.folder / "summary.json"
        if order.job.seed is not None and path.exists():
            summary = codec.read(RunSummary, path)
            if summary.status == "failed" and summary.cause:
                return summary.cause
        said = [line.strip() for line in _last(order.log).splitlines() if line.strip()]
        return (said[-1].removeprefix("error: ") if said else f"it ended with code {code}")[:300]

    def _keep(self, job: Job, begun: str, status: str, cause: str | None) -> Attempt:
        attempt = Attempt(job.name, len(attempts_at(self.folder, job)) + 1, begun, _now(), status, cause)
        place = self.folder / job.claim
        with storage.explained(place):
            place.mkdir(parents=True, exist_ok=True)
        storage.append_line(place / "attempts.jsonl", codec.to_line(attempt))
        return attempt

    def _stop(self) -> None:
        """Ask all processes to save, and wait for them."""
        self.engine.stop()
        until = time.monotonic() + SECONDS_TO_SAVE
        while self.active and time.monotonic() < until:
            for order, code in self.engine.ended():
                begun = self.active.pop(order.job)
                self._keep(order.job, begun, "finished" if code == 0 else "stopped", None)
            time.sleep(SECONDS_BETWEEN_LOOKS / 4)
        raise Stopped


def _last(path: Path) -> str:
    """The end of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4000))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
