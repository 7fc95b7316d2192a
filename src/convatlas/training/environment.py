"""Where a run is made: versions and machine, without names of users, hosts or folders."""

import os
import platform
from pathlib import Path

import numpy
import torch

import convatlas
from convatlas.records.run import Environment


def environment() -> Environment:
    """Versions and machine, as they stand in every run folder and report."""
    return Environment(
        convatlas=convatlas.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=numpy.__version__,
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=_memory_gib(),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def _processor() -> str:
    """The processor's name as Linux gives it, elsewhere as Python does."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _memory_gib() -> float:
    """Main memory in GiB; 0 where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return 0.0
