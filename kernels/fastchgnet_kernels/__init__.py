"""The operations CHGNet is made of, each a module with `forward` and a hand-derived `backward`. Needs torch, numpy.

On CUDA devices they are Triton's kernels, which need triton.
"""

from fastchgnet_kernels import (
    angle_basis,
    bond_basis,
    edge_geometry,
    gated_message,
    gated_update,
    readout,
    segment_sum,
)
from fastchgnet_kernels._launch import check_triton, on_device, runs_kernels

__all__ = [
    "angle_basis",
    "bond_basis",
    "check_triton",
    "edge_geometry",
    "gated_message",
    "gated_update",
    "on_device",
    "readout",
    "runs_kernels",
    "segment_sum",
]
