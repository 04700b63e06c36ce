"""BondConv and AngleUpdate: gated MLPs on angles. Each forward has its adjoint directly below."""

from typing import NamedTuple

import torch
from torch import Tensor

from ase_fastchgnet.model.engine.index import GraphIndex
from ase_fastchgnet.model.engine.weights import AngleWeights, BondConvWeights
from fastchgnet_kernels import gated_message, gated_update, segment_sum
from fastchgnet_kernels.gated_message import Dense, Kept, Rows, Scratch, Weighting


class AngleInputs(NamedTuple):
    atoms: Tensor  # (atoms, 64)
    short: Tensor  # (short, 64)
    angles: Tensor  # (angles, 64); in block 0 the Fourier basis (angles, n_angular)


class BondConvSaved(NamedTuple):
    inputs: AngleInputs
    message: Tensor  # (short, 64) summed, before the receiving bond's weight
    table: Tensor | None
    kept: Kept | None


def bond_conv(
    inputs: AngleInputs, weight: Tensor, index: GraphIndex, w: BondConvWeights, *, keep: Scratch | None
) -> tuple[Tensor, BondConvSaved]:
    """short + out(weight_receiving Σ_angles weight_sending message), (short, 64)."""
    table = _table(inputs, index, w.message)
    message, kept = gated_message.forward(
        _rows(table, inputs, index, w.message),
        w.message.gated,
        Weighting(weight, index.angle_sender),
        index.angle_segments,
        keep=keep,
    )
    updated = torch.addmm(inputs.short, message * weight, w.out)
    if w.out_bias is not None:
        updated.add_(index.has_angles.index_select(0, index.short_bonds)[:, None] * w.out_bias)
    return updated, BondConvSaved(inputs, message, None if keep is None else table, kept)


def bond_conv_backward(
    saved: BondConvSaved,
    weight: Tensor,
    index: GraphIndex,
    w: BondConvWeights,
    *,
    grad: AngleInputs,
    grad_weight: Tensor,
) -> None:
    """Turns `grad`, that of the outputs, into that of the inputs, in place; adds to `grad_weight`.

    The gradient of the updated bonds is `grad.short`; as the residual it is also a part of that of the inputs.
    """
    grad_message = grad.short @ w.out.T
    grad_weight.addcmul_(grad_message, saved.message)
    grad_table, grad_sender = gated_message.backward(
        grad_message.mul_(weight),
        _rows(_saved_table(saved, index, w.message), saved.inputs, index, w.message),
        w.message.gated,
        Weighting(weight, index.angle_sender),
        index.angle_segments,
        grad_x=grad.angles,
        kept=saved.kept,
    )
    grad_weight.add_(grad_sender)
    _table_backward(grad_table, index, w.message, grad)


class AngleUpdateSaved(NamedTuple):
    inputs: AngleInputs
    table: Tensor | None
    kept: Kept | None


def angle_update(
    inputs: AngleInputs, index: GraphIndex, w: AngleWeights, *, out: Tensor, keep: Scratch | None
) -> AngleUpdateSaved:
    """Adds the gated MLP of every angle to `out` (angles, 64), which holds the angle features."""
    table = _table(inputs, index, w)
    kept = gated_update.forward(_rows(table, inputs, index, w), w.gated, out=out, keep=keep)
    return AngleUpdateSaved(inputs, None if keep is None else table, kept)


def angle_update_backward(
    grad_updated: Tensor, saved: AngleUpdateSaved, index: GraphIndex, w: AngleWeights, *, grad: AngleInputs
) -> None:
    """Adds to `grad`."""
    rows = _rows(_saved_table(saved, index, w), saved.inputs, index, w)
    grad_table = gated_update.backward(grad_updated, rows, w.gated, grad_x=grad.angles, kept=saved.kept)
    _table_backward(grad_table, index, w, grad)


def _rows(table: Tensor, inputs: AngleInputs, index: GraphIndex, w: AngleWeights) -> Rows:
    return Rows(table, index.angle_rows, Dense(inputs.angles, w.angle), w.tf32)


def _saved_table(saved: BondConvSaved | AngleUpdateSaved, index: GraphIndex, w: AngleWeights) -> Tensor:
    return _table(saved.inputs, index, w) if saved.table is None else saved.table


def _table(inputs: AngleInputs, index: GraphIndex, w: AngleWeights) -> Tensor:
    """First layer per operand: [receiving short edges, with their centre | sending short bonds], (3 short, 128)."""
    n_short = inputs.short.shape[0]
    table = inputs.short.new_empty(3 * n_short, w.bias.shape[0])
    centers = torch.addmm(w.bias, inputs.atoms, w.center)
    torch.index_select(centers, 0, index.short_center, out=table[: 2 * n_short])
    table[: 2 * n_short].view(n_short, 2, -1).add_((inputs.short @ w.receiving)[:, None])
    torch.mm(inputs.short, w.sending, out=table[2 * n_short :])
    return table


def _table_backward(grad_table: Tensor, index: GraphIndex, w: AngleWeights, grad: AngleInputs) -> None:
    n_short = grad.short.shape[0]
    grad_receiving = grad_table[: 2 * n_short]
    grad.short.addmm_(grad_receiving.view(n_short, 2, -1).sum(1), w.receiving.T)
    grad.short.addmm_(grad_table[2 * n_short :], w.sending.T)
    by_center = index.short_of_center
    grad.atoms.addmm_(segment_sum.forward(grad_receiving, by_center.messages, by_center.messages_ptr), w.center.T)
