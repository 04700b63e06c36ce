"""What a block does along angles: BondConv, and AngleUpdate that reads new bonds or, with parallel updates, old ones.

Forward, and its adjoint directly below.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ase_fastchgnet.model.engine.angle_messages import (
    AngleInputs,
    AngleUpdateSaved,
    BondConvSaved,
    angle_update,
    angle_update_backward,
    bond_conv,
    bond_conv_backward,
)
from ase_fastchgnet.model.engine.index import GraphIndex
from ase_fastchgnet.model.engine.weights import EngineWeights
from fastchgnet_kernels.gated_message import Scratch

Take = Callable[[str, int, int], Scratch | None]  # op, block, rows → memory for activations, if there is some


class AngleBlockSaved(NamedTuple):
    bonds: BondConvSaved
    angles: AngleUpdateSaved | None  # None in the last block, whose angles nothing reads


def angles_read_last(saved: Sequence[AngleBlockSaved], basis: Tensor) -> Tensor:
    """The angles that the last block reads; `basis` if no block reads any."""
    return saved[-1].bonds.inputs.angles if saved else basis


def forward(
    inputs: AngleInputs, weight: Tensor, index: GraphIndex, w: EngineWeights, block: int, take: Take
) -> tuple[Tensor, Tensor, AngleBlockSaved]:
    """Updated short bonds (short, 64) and angles (angles, 64)."""
    kept = take("bond conv", block, index.n_angles)
    short, saved_bonds = bond_conv(inputs, weight, index, w.bond_convs[block], keep=kept)
    if block == len(w.angle_updates):
        return short, inputs.angles, AngleBlockSaved(saved_bonds, None)
    updated = inputs.angles @ w.angle_embedding if block == 0 else inputs.angles.clone()
    read = inputs if w.parallel_updates else inputs._replace(short=short)
    kept = take("angle update", block, index.n_angles)
    saved_angles = angle_update(read, index, w.angle_updates[block], out=updated, keep=kept)
    return short, updated, AngleBlockSaved(saved_bonds, saved_angles)


def backward(
    grad: AngleInputs,
    saved: AngleBlockSaved,
    weight: Tensor,
    index: GraphIndex,
    w: EngineWeights,
    block: int,
    *,
    grad_weight: Tensor,
) -> Tensor:
    """The gradient of the block's angles; turns the rest of `grad`, that of its outputs, into that of its inputs.

    Adds to `grad_weight`.
    """
    grad_angles, grad_old_short = grad.angles, None
    if saved.angles is not None:
        if block == 0:
            grad = grad._replace(angles=grad_angles @ w.angle_embedding.T)
        # Later blocks share one array, the residual: rows of `grad_angles` are read before they are added to.
        read = grad
        if w.parallel_updates:
            grad_old_short = torch.zeros_like(grad.short)
            read = grad._replace(short=grad_old_short)
        angle_update_backward(grad_angles, saved.angles, index, w.angle_updates[block], grad=read)
    bond_conv_backward(saved.bonds, weight, index, w.bond_convs[block], grad=grad, grad_weight=grad_weight)
    if grad_old_short is not None:
        grad.short.add_(grad_old_short)
    return grad.angles
