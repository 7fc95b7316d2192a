"""Run the quick benchmarks one after the other and write docs/performance.md: `make bench`.

    python benchmarks/write_performance.py [--out docs/performance.md]

Takes about half an hour on two cores; leave the machine alone meanwhile. With the extra `openvino` installed it is compared too.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SEVERAL = ("--processes", "9", "--rounds", "5", "--steps", "78")  # an epoch of 390 steps ends once in what counts
BENCHES = (
    # A step of LeNet-5 takes milliseconds: of two of them the machine's hiccups are a good part, and its processes differ.
    ("A training step of LeNet-5", "train_step.py", ("lenet5", *SEVERAL)),
    ("A training step", "train_step.py", ("vgg11", "resnet18", "--processes", "6", "--rounds", "1", "--steps", "2")),
    (
        "With the data pipeline counted",
        "train_step.py",
        ("lenet5", *SEVERAL, "--data", "--loops", "teaching", "expert", "convatlas"),
    ),
    ("What the loop costs", "overhead.py", ("lenet5", "--processes", "9", "--rounds", "3")),
    ("Batches", "augment.py", ("--quick",)),
    ("Inference", "inference.py", ("--quick",)),
)
HEADER = """# Performance

Written by `make bench`; figures hold for the machine and the day below. Others are in [the log](LOG.md). Ratios come from runs
that took turns on this machine, with the interval that covers their median in 95 of 100 cases: the median of the rounds, or where
there are several processes (`--processes`) of these. Each ratio is of values that took turns with each other. Other days may
differ by more.
"""


def machine() -> str:
    """Processor, memory, versions and load, without names."""
    from convatlas.training.environment import environment
    from convatlas.training.precision import cpu_computes_bf16, cpu_multiplies_tiles

    here = environment()
    able = "AMX" if cpu_multiplies_tiles() else "AVX-512 BF16" if cpu_computes_bf16() else "no bf16 instructions"
    load = os.getloadavg()[0]
    facts = f"{here.processor}, {here.cores} cores, {able}, {here.memory_gib:g} GiB, {here.system}"
    versions = f"Python {here.python}, torch {here.torch}"
    return f"{time.strftime('%Y-%m-%d', time.gmtime())}; {facts}; {versions}; load before: {load:.1f}"


def main() -> None:
    """Run, and write the page when all have run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs/performance.md")
    options = parser.parse_args()
    parts = [HEADER, machine() + "\n"]
    for title, script, words in BENCHES:
        print(f"{title}: python benchmarks/{script} {' '.join(words)}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, HERE / script, *words], stdout=subprocess.PIPE, text=True, check=True)
        parts.append(f"## {title}\n\n```sh\npython benchmarks/{script} {' '.join(words)}\n```\n\n{done.stdout.strip()}\n")
    options.out.write_text("\n".join(parts), encoding="utf-8")
    print(f"written: {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
