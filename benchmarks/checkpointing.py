"""Peak memory and time of a training step with and without gradient checkpointing, each in a process of its own.

    python benchmarks/checkpointing.py [MODEL ...] [--batch-size 16] [--image-size 224] [--steps 3]

Prints for each network: peak resident memory above that of the built network (MiB), median seconds a step (of the steps after
the first), and both as ratios. Runs alternate: without, with, without, with.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time


def measure(name: str, *, checkpointing: bool, batch_size: int, image_size: int, steps: int) -> dict[str, float]:
    """One network in this process: MiB at its peak above the built network, and median seconds a step."""
    import torch

    import convatlas

    torch.manual_seed(0)
    model = convatlas.create_model(name, image_size=image_size).train()
    model.set_grad_checkpointing(checkpointing)
    x = torch.randn(batch_size, 3, image_size, image_size)
    labels = torch.arange(batch_size) % 10
    built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = sum(weight * torch.nn.functional.cross_entropy(out, labels) for weight, out in model.training_logits(x))
        loss.backward()
        model.zero_grad()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"mib": (peak - built) / 1024, "seconds": statistics.median(seconds[1:])}


def main() -> None:
    """Parse, measure each network in fresh processes, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["densenet121", "resnet50"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--one", choices=["with", "without"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = {"batch_size": options.batch_size, "image_size": options.image_size, "steps": options.steps}
    if options.one:
        print(json.dumps(measure(options.models[0], checkpointing=options.one == "with", **sizes)))
        return
    for name in options.models:
        found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
        for _ in range(options.repeats):
            for which in found:
                command = [sys.executable, __file__, name, "--one", which]
                command += [part for key, value in sizes.items() for part in (f"--{key.replace('_', '-')}", str(value))]
                found[which].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        for what, unit in (("mib", "MiB above the built network"), ("seconds", "s a step")):
            without, with_ = ([run[what] for run in found[which]] for which in ("without", "with"))
            ratio = statistics.median(with_) / statistics.median(without)
            shown = (" ".join(f"{value:.4g}" for value in values) for values in (without, with_))
            print(f"{name}: {unit}: without {next(shown)}, with {next(shown)}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
