"""Where kernels run: on CUDA devices, and in Triton's interpreter on the CPU. No maths in this file."""

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

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


def options(warps: int, stages: int = 1) -> dict[str, Any]:
    """How a kernel is compiled, beside its constants: with products and sums fused, which from 3.10 on Triton must be
    told, and from 3.9 on warns of if it is not.
    """
    return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}


class Tile(NamedTuple):
    """How a gated kernel cuts up its work."""

    rows: int  # messages at a time
    segments: int  # whole segments per program, 1 to 16
    warps: int
    stages: int


# What is used unmeasured; tests hold the machine code of these to budgets. Hopper and data-centre Blackwell multiply
# whole tiles from shared memory. On others factors lie in registers: with 128 rows a thread would spill 6 KiB.
DEFAULT_TILE = Tile(rows=128, segments=4, warps=8, stages=1)
BLACKWELL_TILE = Tile(rows=64, segments=4, warps=8, stages=1)  # with 128, Triton 3.7 makes a trap of one kernel
SMALL_TILE = Tile(rows=32, segments=4, warps=4, stages=1)
# Numbers of float64 take twice the registers, in instructions for fewer rows: with 64 rows a thread would spill 4 KiB.
DOUBLE_TILE = Tile(rows=16, segments=4, warps=8, stages=1)


def default_tile(capability: tuple[int, int], itemsize: int) -> Tile:
    """Of GPUs of a compute capability, for numbers of so many bytes."""
    if itemsize == 8:
        return DOUBLE_TILE
    return {9: DEFAULT_TILE, 10: BLACKWELL_TILE}.get(capability[0], SMALL_TILE)
