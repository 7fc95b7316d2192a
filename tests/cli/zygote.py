"""The command line in processes that have imported everything already, so that a hundred commands take seconds.

Each command is a process of its own, forked from one that has imported what the commands import and has computed nothing.
"""

import io
import multiprocessing
import os
import posix
import sys
import time
import traceback
from dataclasses import dataclass
from unittest import mock

import coverage

COUNTING = "COVERAGE_PROCESS_CONFIG"
"""Without this variable, in a test that is marked as untraced, nobody counts the lines that the command reaches."""
COUNTER = os.environ.get(COUNTING)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.cli.preloaded", "tests.cli.reached"])


@dataclass(frozen=True)
class Result:
    """What a command came to; `seconds` without starting up."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


def command(*words, folder, timeout=120, **environment):
    """`convatlas` with these words in `folder`; environment variables given as None are unset."""
    out, err = folder.parent / f"{folder.name}.out", folder.parent / f"{folder.name}.err"
    fixed = {"XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": None, "FORCE_COLOR": None, "CUDA_VISIBLE_DEVICES": ""}
    fixed[COUNTING] = os.environ.get(COUNTING)
    process = CONTEXT.Process(target=_run, args=([*map(str, words)], str(folder), str(out), str(err), {**fixed, **environment}))
    _start(process)
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"{words} did not end within {timeout} s: {err.read_text()}")
    *said, seconds = err.read_text(encoding="utf-8", errors="backslashreplace").rpartition("seconds ")
    return Result(process.exitcode, out.read_text(encoding="utf-8", errors="backslashreplace"), said[0], float(seconds or "nan"))


def _start(process):
    """Start it, and with the first one the process that it is forked from, which counts lines even if the first is not counted."""
    with mock.patch.dict(os.environ, {} if COUNTER is None else {COUNTING: COUNTER}):
        process.start()


def _run(words, folder, out, err, environment):
    """In the child: the command, with what it says in files, and at last how long it took."""
    counter = coverage.Coverage.current()
    if counter is not None and environment[COUNTING] is None:
        counter.stop()
        counter = None
    os.chdir(folder)
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb", closefd=False), write_through=True) for n in (1, 2))
    sys.argv = ["convatlas", *words]
    from convatlas.cli.main import main

    begun, code = time.perf_counter(), 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.write(f"seconds {time.perf_counter() - begun}")
    sys.stderr.flush()
    if counter is not None:
        counter.save()
    posix._exit(code)  # coverage's os._exit would write once more what the process had reached that this one is forked from
