"""How a study looks while it goes on, and how it is stopped."""

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from convatlas.cli.console import ERR, say
from convatlas.errors import UserError
from convatlas.records.plan import Attempt
from convatlas.study.folder import Job, read_plan
from convatlas.study.progress import state_of
from convatlas.training.outcome import Stopped

PLAIN_EVERY = 50
"""Without a terminal, how far runs have come is said at every fiftieth look: every ten seconds."""


class StudyDisplay:
    """A bar for each run under way and one for all; plain lines where there is no terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.plan = folder, read_plan(folder)
        self.live = ERR.is_terminal and not ERR.is_dumb_terminal
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[state]}", markup=False),
            console=ERR,
        )
        self.tasks: dict[Job, TaskID] = {}
        self.whole: TaskID | None = None
        self.stopped = False
        self.looks = 0

    def running(self, jobs: list[Job], *, done: int, total: int) -> None:
        """Move the bars."""
        self.looks += 1
        if self.looks % (5 if self.live else PLAIN_EVERY) != 1:
            return
        if not self.live:
            if self.looks > 1:
                for job in jobs:
                    said, _ = self._said(job)
                    say(f"{job.name}: {said}")
            return
        if self.whole is None:
            self.whole = self.bars.add_task("all runs", total=total, state="")
        self.bars.update(self.whole, completed=done, total=total, state=f"{done} of {total}")
        for job in [each for each in self.tasks if each not in jobs]:
            self.bars.remove_task(self.tasks.pop(job))
        for job in jobs:
            if job not in self.tasks:
                self.tasks[job] = self.bars.add_task(job.name, total=1.0, state="")
            said, share = self._said(job)
            self.bars.update(self.tasks[job], completed=share, state=said)

    def _said(self, job: Job) -> tuple[str, float]:
        """How far the job is, in words and as a share."""
        state = state_of(self.folder, self.plan, job)
        done, _, planned = state.epochs.partition(" of ")
        accuracy = "" if state.val_accuracy is None else f", validation {state.val_accuracy:.1%}"
        share = int(done) / int(planned) if planned.isdecimal() and done.isdecimal() else 0.0
        return (f"epoch {state.epochs}{accuracy}" if state.epochs else "searching"), share

    def job_done(self, job: Job, attempt: Attempt) -> None:
        """How a run ended, in a line."""
        state = state_of(self.folder, self.plan, job)
        seen = "" if state.test_accuracy is None else f": {state.test_accuracy:.2%} on test"
        why = f": {attempt.cause}" if attempt.cause else ""
        self.note(f"{attempt.status:<9} {job.name}{seen if attempt.status == 'finished' else why}")

    def note(self, text: str) -> None:
        """A line above the bars."""
        if self.live:
            self.bars.console.print(text, markup=False)
        else:
            say(text)

    def stopping(self) -> bool:
        """Whether Ctrl-C or SIGTERM came."""
        return self.stopped


@contextmanager
def watching_study(folder: Path) -> Iterator[StudyDisplay]:
    """A display that shows how the study goes. Ctrl-C or SIGTERM lets every run save and stop; a second one ends all at once."""
    display = StudyDisplay(folder)
    caught: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        display.stopped = True
        display.note("stopping: every run saves after its step ...")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if display.live:
            display.bars.start()
        yield display
    except Stopped:
        display.bars.stop()
        say(f"stopped; what is done is kept. Go on with: convatlas study resume {shlex.quote(str(folder))}")
        raise typer.Exit(128 + (caught[0] if caught else signal.SIGTERM)) from None
    finally:
        display.bars.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def refused_code(files: list[Path], given: list[Path]) -> UserError | None:
    """The error for a study whose networks are made by files that were not named; None if all were."""
    known = {path.resolve() for path in given}
    lacking = [path for path in files if path not in known]
    if not lacking:
        return None
    what = f"networks of this study are made by the Python file {lacking[0]}, which would be run"
    return UserError(what, fix=f"If you trust it, name it with --code {shlex.quote(str(lacking[0]))}.")
