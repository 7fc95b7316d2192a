"""`convatlas study`: a plan in, many runs, one report. What needs torch is imported when called."""

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from convatlas.cli import options as o
from convatlas.cli.console import OUT, clock, count, counted, printable, say, tell, tell_json
from convatlas.errors import InUseError, UserError
from convatlas.records import codec, storage

if TYPE_CHECKING:
    from convatlas.data.dataset import DataSet
    from convatlas.records.findings import Findings
    from convatlas.records.plan import StudyPlan
    from convatlas.records.run import Recipe
    from convatlas.records.study import Interval
    from convatlas.study.engines import Means

MOST_RUNS = 100
"""More runs than these need --yes: a factor of ten levels too many is a slip."""
NARROW_TABLE, COSTS = 80, 3
"""Columns of a terminal below which the table has no costs, which are so many columns."""
HELP = """Ablations and comparisons with seeds, intervals and a sealed test split.

A study is a YAML file: `question`, `recipe` (settings of a run), `factors` (what varies), `seeds`; see docs/studies.md."""

app = typer.Typer(name="study", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False)

Folder = Annotated[Path, typer.Argument(help="The study's folder.")]
Plan = Annotated[str, typer.Argument(help="plan.yaml, or plan.py:study.")]
Engine = Annotated[str, typer.Option("--engine", help="local, or ray: a Ray cluster.")]
Address = Annotated[str | None, typer.Option("--address", help="Of the Ray cluster (default: this machine's).")]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Runs at once (default: as many as there are cores or GPUs for).")]
Retry = Annotated[bool, typer.Option("--retry", help="Try again what has failed twice, and set damaged runs aside.")]
Code = Annotated[list[Path] | None, typer.Option("--code", help="A Python file that makes a network, which may be run.")]
Measure = Annotated[bool, typer.Option("--measure/--no-measure", help="Measure latency, throughput and memory at the end.")]


@app.command()
def run(
    plan: Plan,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The study's folder (default: runs/NAME).")] = None,
    data_root: o.DataRoot = None,
    engine: Engine = "local",
    address: Address = None,
    jobs: Jobs = None,
    measure: Measure = True,
    retry: Retry = False,
    yes: Annotated[bool, typer.Option("--yes", help=f"Also if there are more than {MOST_RUNS} runs.")] = False,
    no_verify: o.NoVerify = False,
    as_json: o.Json = False,
) -> None:
    """Make all runs of a plan that are not made yet, and the report. The same command again goes on."""
    from convatlas.study.engines import Means
    from convatlas.study.folder import PLAN, begin, changes, read_plan
    from convatlas.study.trusting import code_files

    resolved = _resolved(plan, data_root, verify=not no_verify)
    folder = out or Path("runs") / resolved.name
    runs = len(resolved.variants) * len(resolved.seeds)
    if runs > MOST_RUNS and not yes:
        raise UserError(f"this plan has {runs:,} runs", fix="Give --yes if that is meant.")
    if (folder / PLAN).exists():
        changed = changes(read_plan(folder), resolved)
        if changed:
            fix = f"Name another folder with --out, or go on with the old plan: convatlas study resume {shlex.quote(str(folder))}"
            raise UserError(f"the plan is not the one that {folder} was begun with: {changed[0]}", fix=fix)
    else:
        o.check_new(out)
        begin(resolved, folder)
    means = Means(data_root, tuple(code_files(resolved)), resolved.threads, resolved.processes)
    _go(folder, engine, address, jobs, means, measure=measure, retry=retry, as_json=as_json)


@app.command()
def resume(
    folder: Folder,
    data_root: o.DataRoot = None,
    engine: Engine = "local",
    address: Address = None,
    jobs: Jobs = None,
    measure: Measure = True,
    retry: Retry = False,
    code: Code = None,
    as_json: o.Json = False,
) -> None:
    """Go on with a study by its folder alone."""
    from convatlas.study.engines import Means

    plan = _trusted(folder, code)
    means = Means(data_root, tuple(path.resolve() for path in code or ()), plan.threads, plan.processes)
    _go(folder, engine, address, jobs, means, measure=measure, retry=retry, as_json=as_json)


@app.command("plan")
def show_plan(plan: Plan, data_root: o.DataRoot = None, no_verify: o.NoVerify = False, as_json: o.Json = False) -> None:
    """Check a plan and say what it comes to, without a run."""
    resolved = _resolved(plan, data_root, verify=not no_verify)
    if as_json:
        tell_json(resolved)
        return
    _tell_plan(resolved)


@app.command()
def status(folder: Folder, as_json: o.Json = False) -> None:
    """Say which runs are done, under way, waiting or failed."""
    from convatlas.study.progress import states_of

    states = states_of(folder)
    if as_json:
        tell_json(states)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "epochs", "validation", "test", ""):
        table.add_column(heading, no_wrap=heading != "")
    for each in states:
        shown = ["-" if share is None else f"{share:.2%}" for share in (each.val_accuracy, each.test_accuracy)]
        table.add_row(printable(each.job), each.state, each.epochs, *shown, printable(each.cause or ""))
    OUT.print(table)
    tell(f"{sum(each.state == 'done' for each in states)} of {counted(len(states), 'run')} done")


@app.command()
def report(
    folder: Folder,
    compare: Annotated[tuple[str, str] | None, typer.Option("--compare", help="Two variants, for a page on them alone.")] = None,
    as_json: o.Json = False,
) -> None:
    """Make the report anew from the study's files: HTML, CSV, JSON and Markdown."""
    _tell_report(_write_report(folder, compare), as_json=as_json)


@app.command("add-seeds")
def add_seeds(folder: Folder, n: Annotated[int, typer.Argument(help="How many.")], as_json: o.Json = False) -> None:
    """Plan more seeds; `convatlas study resume` makes their runs."""
    from convatlas.study.folder import add_seeds as add

    new = add(folder, n)
    if as_json:
        tell_json({"added": list(new)})
        return
    tell(f"added {counted(len(new), 'seed')}: {', '.join(map(str, new))}")
    say("note: seeds that are added because of what was seen make intervals a little too narrow; the report says so")
    tell(f"next: convatlas study resume {shlex.quote(str(folder))}")


@app.command()
def power(
    folder: Folder,
    difference: Annotated[list[float], typer.Option("--difference", help="In points of accuracy.")] = [0.5, 1.0, 2.0],  # noqa: B006
    power: Annotated[float, typer.Option("--power", help="The chance of finding it.")] = 0.8,
    as_json: o.Json = False,
) -> None:
    """Say how many seeds a difference needs, from the spread seen so far."""
    from convatlas.study.powering import powers_of

    rows = powers_of(folder, differences=[each / 100 for each in difference], power=power)
    if as_json:
        tell_json(rows)
        return
    table = Table(title=f"seeds for a chance of {power:.0%}", title_justify="left", box=None, pad_edge=False)
    for heading in ("comparison", "points", "seeds", "likely range", "spread seen"):
        table.add_column(heading, justify="left" if heading == "comparison" else "right")
    for row in rows:
        if row.cause is not None:
            table.add_row(printable(row.comparison), "", "", "", printable(row.cause))
            continue
        ends, spread = f"{_many(row.low)} to {_many(row.high)}", f"{100 * row.spread:.2f} points"
        table.add_row(printable(row.comparison), f"{100 * row.difference:g}", _many(row.likely), ends, spread)
    OUT.print(table)


def _many(seeds: int | None) -> str:
    return "over 10,000" if seeds is None else str(seeds)


@app.command()
def measure(
    folder: Folder,
    rounds: Annotated[int, typer.Option("--rounds", help="In each of which every variant has its turn.", min=6)] = 10,
    threads: o.Threads = None,
    code: Code = None,
    as_json: o.Json = False,
) -> None:
    """Measure latency, throughput and memory of all variants in turn, on a machine that does nothing else."""
    _trusted(folder, code)
    _measure(folder, rounds=rounds, threads=threads)
    _tell_report(_write_report(folder, None), as_json=as_json)


@app.command(hidden=True)
def work(
    folder: Path, variant: str, seed: str, threads: o.Threads = None, data_root: o.DataRoot = None, code: Code = None
) -> None:
    """Do one job of a study; the scheduler starts it."""
    from convatlas.cli.working import in_turn, load_for, together, use_threads, watching
    from convatlas.study.folder import Job, variant_of
    from convatlas.study.worker import BUSY, claimed, do_job, end_with_scheduler

    end_with_scheduler()
    plan = _trusted(folder, code)
    job = Job(variant, None if seed == "tuning" else int(seed))
    try:
        with claimed(folder, job), together() as world:
            use_threads(threads, world)
            data = in_turn(world, lambda: load_for(variant_of(plan, variant).recipe, data_root, quiet=True))
            with watching(1, folder / job.folder, f"convatlas study resume {shlex.quote(str(folder))}") as watch:
                do_job(folder, plan, job, data=data, watch=watch, world=world)
    except InUseError as error:
        say(str(error))
        raise typer.Exit(BUSY) from None


# What the commands share


def _resolved(source: str, data_root: Path | None, *, verify: bool) -> "StudyPlan":
    """The plan in the file `source`, checked against the data, the models and this machine."""
    from convatlas.cli.working import load
    from convatlas.study.plan_file import read_study
    from convatlas.study.resolve import resolve
    from convatlas.study.trusting import trust_plan

    study = read_study(source)
    trust_plan(study)
    loaded: dict[o.DataOptions, DataSet] = {}

    def data_for(recipe: "Recipe") -> "DataSet":
        chosen = o.data_of(recipe, data_root, verify=verify)
        if chosen not in loaded:
            loaded[chosen] = load(chosen)
        return loaded[chosen]

    return resolve(study, where=source, load=data_for)


def _trusted(folder: Path, code: list[Path] | None) -> "StudyPlan":
    """The plan of the study in `folder`, if all files that make its networks were named in this command."""
    from convatlas.cli.studying import refused_code
    from convatlas.study.folder import read_plan
    from convatlas.study.trusting import check_files, code_files, trust_files

    plan = read_plan(folder)
    refusal = refused_code(code_files(plan), code or [])
    if refusal is not None:
        raise refusal
    trust_files(code or [])
    check_files(plan)
    return plan


def _go(
    folder: Path,
    engine: str,
    address: str | None,
    jobs: int | None,
    means: "Means",
    *,
    measure: bool,
    retry: bool,
    as_json: bool,
) -> None:
    """Make what is left of a study, measure, report."""
    from convatlas.cli.studying import watching_study
    from convatlas.study.engines import engine_called
    from convatlas.study.folder import read_plan
    from convatlas.study.scheduler import run_study
    from convatlas.study.summary import SPEEDS

    plan = read_plan(folder)
    made = engine_called(engine, jobs=jobs, threads=plan.threads, processes=plan.processes, address=address)
    _tell_plan(plan, quiet=True)
    with watching_study(folder) as watch:
        run_study(folder, engine=made, watch=watch, means=means, retry=retry)
    if measure and not (folder / SPEEDS).exists():
        _measure(folder, rounds=10, threads=plan.threads)
    written = _write_report(folder, None)
    _tell_report(written, as_json=as_json)
    failed = [each for row in written["findings"].variants for each in row.failures]
    if failed:
        again = f"convatlas study resume {shlex.quote(str(folder))} --retry"
        raise UserError(f"{counted(len(failed), 'run')} without a result", fix=f"Mend the cause, then: {again}")


def _measure(folder: Path, *, rounds: int, threads: int | None) -> None:
    from convatlas.cli.progress import loading_bar
    from convatlas.study.folder import read_plan
    from convatlas.study.speeds import measured_speeds
    from convatlas.study.summary import SPEEDS

    plan = read_plan(folder)
    with loading_bar() as progress:
        speeds = measured_speeds(plan, rounds=rounds, threads=threads or os.cpu_count() or 1, progress=progress)
    storage.write_text(folder / SPEEDS, codec.to_text(speeds))


def _write_report(folder: Path, compare: tuple[str, str] | None) -> dict[str, Any]:
    """Write findings.json and what is made of it; returns the findings and the names of the files."""
    from convatlas.records.study_folder import read_study
    from convatlas.report.study import study_csv, study_markdown, study_page
    from convatlas.study.summary import keep_findings, with_pair

    keep_findings(folder)
    findings, runs = read_study(folder)
    shown = findings if compare is None else with_pair(folder, findings, compare)
    page = folder / ("report.html" if compare is None else "report-compare.html")
    storage.write_text(page, study_page(shown, runs, compare=compare))
    storage.write_text(folder / "results.csv", study_csv(findings, runs))
    storage.write_text(folder / "report.md", study_markdown(findings, runs))
    return {"findings": shown, "page": page, "folder": folder, "pair": compare}


def _tell_report(written: dict[str, Any], *, as_json: bool) -> None:
    findings: Findings = written["findings"]
    if as_json:
        tell_json({"report": str(written["page"]), "findings": codec.to_plain(dataclasses.replace(findings))})
        return
    pair = written["pair"]
    OUT.print(_table(findings, of=pair))
    for effect in findings.effects:
        if pair is None or {effect.first, effect.second} == set(pair):
            tell(effect.sentence)
    for failure in (each for row in findings.variants for each in row.failures):
        say(f"no result of {failure.run} after {counted(failure.attempts, 'attempt')}: {failure.cause}")
    if findings.missing:
        say(f"{counted(len(findings.missing), 'run')} missing; go on with: {findings.command}")
    tell(f"report: {written['page']}")


def _table(findings: "Findings", *, of: Sequence[str] | None) -> Table:
    """The variants at a glance, in the plan's order: all, or those that are named. A narrow terminal leaves the costs out."""
    first = 0 if OUT.width >= NARROW_TABLE else COSTS
    table = Table(title=printable(findings.plan.question), title_justify="left", box=None, pad_edge=False)
    table.add_column("variant", overflow="fold")
    for heading in ("params", "MACs", "time", "runs", "test %", "95 % interval")[first:]:
        table.add_column(heading, justify="right", no_wrap=True)
    planned = {variant.name: variant for variant in findings.plan.variants}
    for row in findings.variants:
        if of is not None and row.name not in of:
            continue
        time = "-" if row.train_seconds is None else clock(row.train_seconds)
        costs = (count(planned[row.name].params), count(planned[row.name].macs), time)
        found = ("-", "") if row.top1 is None else _accuracy(row.top1)
        table.add_row(printable(row.name), *costs[first:], str(len(row.runs)), *found)
    return table


def _accuracy(found: "Interval") -> tuple[str, str]:
    return f"{100 * found.mean:.2f}", f"{100 * found.low:.1f} - {100 * found.high:.1f}"


def _tell_plan(plan: "StudyPlan", *, quiet: bool = False) -> None:
    """What the plan comes to, in a few lines."""
    line = say if quiet else tell
    line(f"{plan.question}")
    runs = f"{counted(len(plan.variants), 'variant')} x {counted(len(plan.seeds), 'seed')}"
    line(f"{runs} = {counted(len(plan.variants) * len(plan.seeds), 'run')} on {plan.data_description}")
    if quiet:
        return
    for variant in plan.variants:
        steps = "" if variant.steps is None else f", {variant.steps:,} steps"
        width = "" if variant.width is None else f", width x {variant.width:.4g}"
        line(f"  {variant.name}: {count(variant.params)} parameters, {count(variant.macs)} MACs{steps}{width}")
    for each in plan.held:
        line(f"held equal: {each.what}, {each.target:,.6g} within {each.tolerance:.1%}")
    line(f"planned comparisons: {len(plan.comparisons)}")
