"""What a block does along angles: BondConv, then AngleUpdate; or, with parallel updates, both at once.

Forward, and its adjoint directly below.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from ase_fastchgnet.model.engine.angle_messages import (
    AngleInputs,
    AngleUpdateSaved,
    BondConvSaved,
    PairSaved,
    angle_update,
    angle_update_backward,
    bond_conv,
    bond_conv_backward,
    pair,
    pair_backward,
)
from ase_fastchgnet.model.engine.index import GraphIndex
from ase_fastchgnet.model.engine.weights import EngineWeights
from fastchgnet_kernels.gated_message import Scratch

Take = Callable[[str, int, int], Scratch | None]  # op, block, rows → memory for activations, if there is some


class InTurn(NamedTuple):
    bonds: BondConvSaved
    angles: AngleUpdateSaved | None  # None in the last block, whose angles nothing reads


AngleBlockSaved = InTurn | PairSaved


def angles_read_last(saved: Sequence[AngleBlockSaved], basis: Tensor) -> Tensor:
    """The angles that the last block reads; `basis` if no block reads any."""
    last = saved[-1] if saved else None
    return last.bonds.inputs.angles if isinstance(last, InTurn) else basis


def forward(
    inputs: AngleInputs, weight: Tensor, index: GraphIndex, w: EngineWeights, block: int, take: Take
) -> tuple[Tensor, Tensor, AngleBlockSaved]:
    """Updated short bonds (short, 64) and angles (angles, 64)."""
    if block == len(w.angle_updates):
        kept = take("bond conv", block, index.n_angles)
        short, saved_bonds = bond_conv(inputs, weight, index, w.bond_convs[block], keep=kept)
        return short, inputs.angles, InTurn(saved_bonds, None)
    updated = inputs.angles @ w.angle_embedding if block == 0 else inputs.angles.clone()
    if w.pairs:
        kept = take("pair", block, 2 * index.n_angles)
        short, saved_pair = pair(inputs, weight, index, w.pairs[block], out=updated, keep=kept)
        return short, updated, saved_pair
    kept = take("bond conv", block, index.n_angles)
    short, saved_bonds = bond_conv(inputs, weight, index, w.bond_convs[block], keep=kept)
    kept = take("angle update", block, index.n_angles)
    inputs = inputs._replace(short=short)
    saved_angles = angle_update(inputs, index, w.angle_updates[block], out=updated, keep=kept)
    return short, updated, InTurn(saved_bonds, saved_angles)


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
    alone = isinstance(saved, InTurn) and saved.angles is None
    # The residual. Later blocks share one array: rows are read before they are added to.
    grad_inputs = grad._replace(angles=grad.angles @ w.angle_embedding.T) if block == 0 and not alone else grad
    if isinstance(saved, PairSaved):
        pair_backward(grad.angles, saved, weight, index, w.pairs[block], grad=grad_inputs, grad_weight=grad_weight)
        return grad_inputs.angles
    if saved.angles is not None:
        angle_update_backward(grad.angles, saved.angles, index, w.angle_updates[block], grad=grad_inputs)
    bond_conv_backward(saved.bonds, weight, index, w.bond_convs[block], grad=grad_inputs, grad_weight=grad_weight)
    return grad_inputs.angles
