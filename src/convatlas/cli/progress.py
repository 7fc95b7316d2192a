"""How training looks while it goes on: a live display at a terminal, one plain line an epoch elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from convatlas.cli.console import ERR, clock, say
from convatlas.records.run import Choices, EpochMetrics
from convatlas.training.watch import Progress


class PlainWatch:
    """One line an epoch, for logs and pipes."""

    def __init__(self, runs: int, *, explain: bool) -> None:
        self.stopped = False
        self.explain = explain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def stop(self) -> None:
        """Ask the run to stop after its step."""
        self.stopped = True

    def stopping(self) -> bool:
        """Whether it was asked to."""
        return self.stopped

    def step(self, progress: Progress) -> None:
        """Nothing: a log wants one line an epoch."""

    def epoch(self, progress: Progress, metrics: EpochMetrics) -> None:
        """The epoch in one line."""
        say(_line(progress, metrics))

    def note(self, text: str) -> None:
        """A sentence of its own."""
        say(text)

    def trying(self, what: str, done: int, total: int) -> None:
        """What is tried, once."""
        if done == 0:
            say(f"trying what is fastest here: {what}")

    def computing(self, what: str, done: int, total: int) -> None:
        """Nothing: a log wants what came out."""

    def chosen(self, choices: Choices) -> None:
        """What the engine chose and why, if that was asked for."""
        if self.explain:
            for line in explained(choices):
                self.note(line)

    def run_done(self, text: str) -> None:
        """A run's outcome."""
        say(text)


class LiveWatch(PlainWatch):
    """Bars that move: the run under way, and how many runs are done."""

    def __init__(self, runs: int, *, explain: bool) -> None:
        super().__init__(runs, explain=explain)
        self.bars = Bars(
            TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.fields[state]}"), console=ERR
        )
        self.runs = runs
        self.all_runs: TaskID | None = None
        self.task: TaskID | None = None
        self.title = ""

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
            self.title = title
        self.bars.update(self.task, completed=progress.fraction, state=_state(progress))

    def epoch(self, progress: Progress, metrics: EpochMetrics) -> None:
        """Move the run's bar; the epoch's line is left to the log."""
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


def _state(p: Progress) -> str:
    of = "" if p.epochs is None else f"/{p.epochs}"
    return (
        f"epoch {p.epoch}{of}  loss {p.loss:.3f}  accuracy {p.accuracy:.1%}  "
        f"{p.images_per_second:,.0f} images/s  {clock(p.seconds_left)} left"
    )


def _line(p: Progress, m: EpochMetrics) -> str:
    val = "" if m.val_accuracy is None else f"  validation {m.val_accuracy:.2%}"
    return f"{p.model} seed {p.seed}  {_state(p)}{val}"


@contextmanager
def loading_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for reading or fetching data; it appears with the first report of progress."""
    bars = Bars(TextColumn("{task.description}"), BarColumn(bar_width=16), MofNCompleteColumn(), console=ERR, transient=True)
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
