"""How training looks while it goes on: a live display at a terminal, one plain line an epoch elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from convatlas.cli.console import ERR, clock, say
from convatlas.records.run import Choices, EpochMetrics
from convatlas.training.watch import Progress

EACH = 100
"""So many epochs have a line each in a log; of later ones that take less than a second every hundredth has one, and the last."""
SIGN_OF_LIFE = 30.0
"""Seconds after which a log is told how far something is that is computed at once."""
WIDE = 110
"""Columns of a terminal: on a narrower one the live line leaves out what matters least."""


class PlainWatch:
    """One line an epoch, for logs and pipes; of thousands of epochs, which a cached probe may run, fewer."""

    def __init__(self, runs: int, *, explain: bool) -> None:
        self.stopped = False
        self.explain = explain
        self.kept: str | None = None
        self.said_at = 0.0
        self.computed, self.computed_so_far, self.told_at = "", 0, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._say_kept()

    def stop(self) -> None:
        """Ask the run to stop after its step."""
        self.stopped = True

    def stopping(self) -> bool:
        """Whether it was asked to."""
        return self.stopped

    def step(self, progress: Progress) -> None:
        """Nothing: a log wants one line an epoch."""

    def epoch(self, progress: Progress, metrics: EpochMetrics) -> None:
        """The epoch in one line, if it is one of those that have one; otherwise the line is kept, for it may be the last."""
        if progress.epoch == 1:
            self._say_kept()
            self.said_at = 0.0
        self.kept = _line(progress, metrics)
        slow = progress.seconds >= self.said_at + 1.0
        if slow or progress.epoch <= EACH or progress.epoch % EACH == 0 or progress.epoch == progress.epochs:
            self.said_at = progress.seconds
            self._say_kept()

    def _say_kept(self) -> None:
        """The line of the last epoch, unless it was said."""
        if self.kept is not None:
            say(self.kept)
            self.kept = None

    def note(self, text: str) -> None:
        """A sentence of its own."""
        say(text)

    def trying(self, what: str, done: int, total: int) -> None:
        """What is tried, once."""
        if done == 0:
            say(f"trying what is fastest here: {what}")

    def computing(self, what: str, done: int, total: int) -> None:
        """A sign of life every half minute."""
        now = perf_counter()
        if what != self.computed or done < self.computed_so_far:  # the same may be computed again, minutes later
            self.computed, self.told_at = what, now
        self.computed_so_far = done
        if now - self.told_at >= SIGN_OF_LIFE:
            self.told_at = now
            say(f"{what}: {done:,} of {total:,}")

    def chosen(self, choices: Choices) -> None:
        """What the engine chose and why, if that was asked for."""
        if self.explain:
            for line in explained(choices):
                self.note(line)

    def run_done(self, text: str) -> None:
        """A run's outcome."""
        self._say_kept()
        say(text)


class LiveWatch(PlainWatch):
    """Bars that move: the run under way, and how many runs are done."""

    def __init__(self, runs: int, *, explain: bool) -> None:
        super().__init__(runs, explain=explain)
        bar = BarColumn(bar_width=16 if ERR.width >= WIDE else 8)
        self.bars = Bars(TextColumn("{task.description}"), bar, TextColumn("{task.fields[state]}"), console=ERR)
        self.runs = runs
        self.all_runs: TaskID | None = None
        self.task: TaskID | None = None
        self.title = ""
        self.validation: float | None = None

    def __enter__(self) -> Self:
        if self.runs > 1:
            self.all_runs = self.bars.add_task("all runs", total=self.runs, state=f"0 of {self.runs}")
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def stop(self) -> None:
        """Ask the run to stop, and say that it was heard."""
        super().stop()
        self.bars.console.print("stopping after this step ...", markup=False)

    def step(self, progress: Progress) -> None:
        """Move the run's bar."""
        title = f"{progress.model} seed {progress.seed}"
        if self.task is None or title != self.title:
            self._drop_task()
            self.task = self.bars.add_task(title, total=1.0, state="")
            self.title, self.validation = title, None
        state = _live(progress, self.validation, wide=self.bars.console.width >= WIDE)
        self.bars.update(self.task, completed=progress.fraction, state=state)

    def epoch(self, progress: Progress, metrics: EpochMetrics) -> None:
        """Move the run's bar, and show how it does on the validation images; the epoch's line is left to the log."""
        self.step(progress)
        if metrics.val_accuracy is not None:
            self.validation = metrics.val_accuracy
            self.step(progress)

    def note(self, text: str) -> None:
        """A sentence above the bars."""
        self.bars.console.print(text, markup=False)

    def trying(self, what: str, done: int, total: int) -> None:
        """A bar of its own while it lasts."""
        if self.task is None or self.title != what:
            self._drop_task()
            self.task, self.title = self.bars.add_task("trying", total=1.0, state=what), what
        self.bars.update(self.task, completed=done / total)

    def computing(self, what: str, done: int, total: int) -> None:
        """A bar of its own while it lasts."""
        if self.task is None or self.title != what:
            self._drop_task()
            self.task, self.title = self.bars.add_task(what, total=1.0, state=""), what
        self.bars.update(self.task, completed=done / total, state=f"{done:,} of {total:,}")

    def run_done(self, text: str) -> None:
        """A run's outcome above the bars."""
        self._drop_task()
        self.bars.console.print(text, markup=False)
        if self.all_runs is not None:
            self.bars.advance(self.all_runs)
            done = int(self.bars.tasks[0].completed)
            self.bars.update(self.all_runs, state=f"{done} of {self.runs}")

    def _drop_task(self) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None


def make_watch(runs: int, *, explain: bool = False) -> LiveWatch | PlainWatch:
    """The live display at a terminal, plain lines elsewhere; `explain` says what the engine chose, and why."""
    live = ERR.is_terminal and not ERR.is_dumb_terminal
    return LiveWatch(runs, explain=explain) if live else PlainWatch(runs, explain=explain)


def explained(choices: Choices) -> list[str]:
    """What the engine chose and why, a line each; then the convolutions that are not torch's own."""
    lines = [f"{reason.about:<14} {reason.chosen:<26} {reason.why}" for reason in choices.reasons]
    for each in choices.convolutions:
        groups = (each.forward, each.to_data, each.to_weights)
        if groups != (1, 1, 1):
            lines.append(
                f"  {each.shape}: {groups[0]}, {groups[1]}, {groups[2]} images side by side, {each.gain:.2f} times as fast"
            )
    return lines


def _epoch(p: Progress) -> str:
    return f"epoch {p.epoch}" if p.epochs is None else f"epoch {p.epoch}/{p.epochs}"


def _state(p: Progress) -> str:
    return (
        f"{_epoch(p)}  loss {p.loss:.3f}  accuracy {p.accuracy:.1%}  "
        f"{p.images_per_second:,.0f} images/s  {clock(p.seconds_left)} left"
    )


def _live(p: Progress, validation: float | None, *, wide: bool) -> str:
    """Where the run stands. The time left comes early, since the end is cut off where a line does not fit."""
    begin = f"{_epoch(p)}  {clock(p.seconds_left)} left"
    val = "" if validation is None else f"  val {validation:.1%}"
    if not wide:
        return f"{begin}  train {p.accuracy:.1%}{val}"
    return f"{begin}  loss {p.loss:.3f}  accuracy {p.accuracy:.1%}{val}  {p.images_per_second:,.0f} images/s"


def _line(p: Progress, m: EpochMetrics) -> str:
    val = "" if m.val_accuracy is None else f"  validation {m.val_accuracy:.2%}"
    return f"{p.model} seed {p.seed}  {_state(p)}{val}"


@contextmanager
def loading_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for reading or fetching data; it appears with the first report of progress."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn())
    bars = Bars(*columns, console=ERR, transient=True, disable=not ERR.is_interactive)  # else rich ends it with an empty line
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if not tasks:
            bars.start()
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            bars.stop()
