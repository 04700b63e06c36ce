"""Where kernels run: on CUDA devices, and in Triton's interpreter on the CPU. No maths in this file."""

import importlib.util
import os

import torch
from torch import Tensor

# Triton reads the variable when it is imported, for the whole process.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def runs_kernels(x: Tensor) -> bool:
    """Whether an op on `x` is done by its Triton kernel; by its definition in plain torch if not."""
    return x.is_cuda or INTERPRETED


def check_triton(device: torch.device) -> None:
    """RuntimeError if ops on `device` need Triton and it is not installed."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise RuntimeError(
            f"device {str(device)!r} needs Triton, which is not installed; pip install 'ase-fastchgnet[gpu]', or use "
            "device='cpu'"
        )


def precision_of(dtype: torch.dtype, tf32: bool) -> str:
    """How `tl.dot` multiplies: float32 as three TF32 products, which keeps 22 bits, unless TF32 alone will do."""
    if dtype == torch.float64:
        return "ieee"
    return "tf32" if tf32 else "tf32x3"
