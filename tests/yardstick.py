"""How fast this processor is just now: a bound in seconds is for a quiet one, and neighbours on the same machine make it slower."""

import gc
import time
from copy import deepcopy

import torch
from torch import nn

QUIET = 0.069
"""Seconds of processor time that the yardstick takes on a quiet core (docs/LOG.md)."""


def slowness() -> float:
    """How many times longer this processor takes now than a quiet one; 1 for a faster one.

    Told by a fixed piece of work, none of ours, of the kind that a network's inspection is: Python, and tensors on the meta
    device. The shorter of two times counts, so that a pause that the measured work did not have excuses nothing.
    """
    gc.collect()
    gc.disable()
    try:
        return max(1.0, min(_yardstick(), _yardstick()) / QUIET)
    finally:
        gc.enable()


def _yardstick() -> float:
    began = time.process_time()
    with torch.device("meta"), torch.no_grad():
        layers = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Identity()) for _ in range(100)))
        deepcopy(layers).eval()(torch.empty(1, 8))
    return time.process_time() - began
