"""Fuzz every target with atheris (coverage-guided), from its seeds and the kept corpus: `make fuzz`.

    python fuzz/run.py [TARGET ...] [--minutes 10]

The minutes are of processor time, shared evenly. What reaches new code is kept in fuzz/corpus/TARGET. Ends with code 1, and the
input in fuzz/found, if a target raises anything but UserError.
"""

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def fuzz_one(name: str, seconds: int) -> None:
    """In a process of its own: libFuzzer ends the process it runs in."""
    import atheris

    with atheris.instrument_imports(include=["convatlas", "PIL", "json", "zipfile", "csv", "pickle", "safetensors"]):
        sys.path.insert(0, str(HERE))
        from targets import TARGETS, admitted
    target, corpus = TARGETS[name], HERE / "corpus" / name.replace(" ", "-")
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-max_len=16384", "-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1"]
    found = HERE / "found"
    found.mkdir(exist_ok=True)
    words = [sys.argv[0], *options, f"-artifact_prefix={found}/{corpus.name}-", str(corpus)]
    atheris.Setup(words, lambda data: admitted(target, data) and None)
    atheris.Fuzz()


def main() -> int:
    """One target after the other; a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fuzz_one(options.targets[0], options.one)
        return 0
    sys.path.insert(0, str(HERE))
    from targets import TARGETS

    names = options.targets or list(TARGETS)
    seconds, failed = max(round(60 * options.minutes / len(names)), 1), []
    print("| target | executions | corpus | |\n|---|---|---|---|")
    for name in names:
        command = [sys.executable, __file__, name, "--one", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        count = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        kept = len(list((HERE / "corpus" / name.replace(" ", "-")).iterdir()))
        verdict = "" if done.returncode == 0 else "FAULT"
        print(f"| {name} | {int(count[1]) if count else 0:,} | {kept} | {verdict} |", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-4000:], file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
