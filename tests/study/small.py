"""Small studies, and an engine whose processes are forked, so that they begin at once."""

import os
import signal
import time
from dataclasses import replace

from convatlas.errors import InUseError, UserError
from convatlas.study.folder import begin, read_plan
from convatlas.study.plan_file import Study
from convatlas.study.resolve import resolve
from convatlas.study.worker import BUSY, STARTED_BY_SCHEDULER, claimed, do_job, end_with_scheduler
from convatlas.training import closing
from convatlas.training.outcome import Stopped
from convatlas.training.watch import Unwatched

from ..cli import preloaded  # noqa: F401  what the forked processes need, imported once
from ..training.makers import small_data

RECIPE = {"data": "shapes", "epochs": 2, "batch_size": 16, "precision": "fp32", "gradients": False}
TINY = {"family": "resnet", "depths": [1, 1, 1], "width": 0.25}


def study(**changes):
    given = {"question": "Which?", "recipe": RECIPE, "factors": {"lr": [0.001, 0.01]}, "model": TINY, "seeds": 2, **changes}
    return Study(**given)


def plan_of(made=None, *, data=None, **changes):
    return resolve(made or study(**changes), where="plan.yaml", load=lambda recipe: data or small_data())


def begun(folder, **changes):
    begin(plan_of(**changes), folder)
    return folder


class Heard:
    """Hears a study, and never asks it to stop."""

    def __init__(self):
        self.attempts, self.notes = [], []

    def running(self, jobs, *, done, total):
        pass

    def job_done(self, job, attempt):
        self.attempts.append((job, attempt.status, attempt.cause))

    def note(self, text):
        self.notes.append(text)

    def stopping(self):
        return False


class _Told(Unwatched):
    """A run that SIGTERM stops."""

    def __init__(self):
        self.stopped = False
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "stopped", True))

    def stopping(self):
        return self.stopped


class Forked:
    """An engine of forked processes that do as `convatlas study work` does, on `data`."""

    def __init__(self, folder, *, slots=2, data=None, before=lambda job: None):
        self.folder, self.slots, self.data, self.before = folder, slots, data or small_data(), before
        self.running, self.started = {}, []

    def start(self, order):
        reader, writer = os.pipe()
        self.started.append(order.job)
        child = os.fork()
        if child == 0:
            os.close(writer)
            for _, other, _ in self.running.values():
                os.close(other)
            self._work(order, reader)
        os.close(reader)
        self.running[child] = (order, writer, None)

    def _work(self, order, reader):
        """In the child."""
        code = 1
        try:
            os.dup2(reader, 0)
            os.environ[STARTED_BY_SCHEDULER] = "1"
            closing.SECONDS_BETWEEN_STATES = 0.0
            watch = _Told()
            end_with_scheduler()
            code = self._done(order, watch)
        finally:
            os._exit(code)

    def _done(self, order, watch):
        try:
            with claimed(self.folder, order.job):
                self.before(order.job)
                do_job(self.folder, read_plan(self.folder), order.job, data=self.data, watch=watch)
        except InUseError:
            return BUSY
        except UserError as error:
            order.log.parent.mkdir(parents=True, exist_ok=True)
            order.log.write_text(f"error: {error}\n")
            return 2
        except Stopped:
            return 143
        return 0

    def ended(self):
        found = []
        for child in list(self.running):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                order, writer, _ = self.running.pop(child)
                os.close(writer)
                found.append((order, os.waitstatus_to_exitcode(status)))
        return found

    def stop(self):
        for child in self.running:
            os.kill(child, signal.SIGTERM)

    def kill(self):
        for child in list(self.running):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(self.running.pop(child)[1])


def records(folder):
    """Everything that the runs of a study came to, but for what a clock decides."""
    from convatlas.records import codec
    from convatlas.records.run import Evaluation, RunSummary
    from convatlas.study.folder import jobs_of

    from ..training.kills import digest

    plan = read_plan(folder)
    found = {}
    for job in jobs_of(plan):
        place = folder / job.folder
        summary = codec.read(RunSummary, place / "summary.json")
        same = replace(summary, train_seconds=0.0, images_per_second=0.0)
        test = replace(codec.read(Evaluation, place / "test.json"), seconds=0.0)
        look = (place / "look.json").read_bytes() if (place / "look.json").exists() else b""
        lines = (place / "test_looks.jsonl").read_text().count("\n")
        found[job.name] = (digest(place), same, test, (place / "answers.json").read_bytes(), look, lines)
        assert not list(place.glob(".*.tmp"))
    return found


def until(true, seconds=60):
    """Wait for something to hold."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)
