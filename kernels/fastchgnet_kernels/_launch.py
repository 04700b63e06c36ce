"""Where kernels run: on CUDA devices, and in Triton's interpreter on the CPU. No maths in this file."""

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

# Triton reads the variable when it is imported, for the whole process.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def runs_kernels(device: torch.device) -> bool:
    """Whether an op on `device` is done by its Triton kernel; by its definition in plain torch if not."""
    return INTERPRETED or device.type == "cuda"


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Within it kernels are launched on `device`: Triton launches on the current one, wherever the tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def check_triton(device: torch.device) -> None:
    """RuntimeError if ops on `device` need Triton and it is not installed."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise RuntimeError(
            f"device {str(device)!r} needs Triton, which is not installed; pip install 'ase-fastchgnet[gpu]', or use "
            "device='cpu'"
        )


class Tile(NamedTuple):
    """How a gated kernel cuts up its work."""

    rows: int  # messages at a time
    segments: int  # whole segments per program, 1 to 16
    warps: int
    stages: int


DEFAULT_TILE = Tile(rows=128, segments=4, warps=8, stages=1)  # whose machine code tests hold to a budget
