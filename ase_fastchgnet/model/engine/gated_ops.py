"""The three gated ops of a graph, as the engine runs them, each by itself: what the tuner times."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.engine.index import build_index
from ase_fastchgnet.model.engine.weights import EngineWeights
from fastchgnet_kernels import gated_message, gated_update
from fastchgnet_kernels.gated_message import Dense, GatedWeights, Rows, Weighting
from fastchgnet_kernels.io_model.gated import GatedShape


class Op(NamedTuple):
    """One of the three gated ops; `run` is its forward and backward pass, the MLP computed again in between."""

    name: str
    shape: GatedShape
    run: Callable[[], object]


def gated_ops(graph: GraphBatch, weights: EngineWeights) -> list[Op]:
    """The ops with the weights of their last blocks. Features are random numbers, on which times do not depend."""
    index, n_atoms, n_short = build_index(graph), graph.numbers.shape[0], graph.short_bonds.shape[0]
    conv, random = weights.atom_convs[-1], torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=random).to(conv.center)

    width = conv.out.shape[0]
    table, weight = normal(2 * n_atoms + graph.n_bonds, 2 * width), normal(graph.n_bonds, width)
    ops = [
        _message(
            "AtomConv",
            Rows(table, index.edge_rows, None),
            conv.gated,
            Weighting(weight, index.edge_bond),
            index.edge_segments,
        )
    ]
    if index.n_angles == 0:
        return ops
    angles, table = normal(index.n_angles, width), normal(3 * n_short, 2 * width)
    bond, update = weights.bond_convs[-1].message, weights.angle_updates[-1]
    sender = Weighting(normal(n_short, width), index.angle_sender)
    rows = Rows(table, index.angle_rows, Dense(angles, bond.angle))
    ops.append(_message("BondConv", rows, bond.gated, sender, index.angle_segments))
    ops.append(_update("AngleUpdate", Rows(table, index.angle_rows, Dense(angles, update.angle)), update.gated))
    return ops


def _message(
    name: str, rows: Rows, weights: GatedWeights, weighting: Weighting, segments: gated_message.Segments
) -> Op:
    grad_x = None if rows.dense is None else torch.zeros_like(rows.dense.x)

    def run() -> None:
        out, _ = gated_message.forward(rows, weights, weighting, segments, keep=None)
        gated_message.backward(out, rows, weights, weighting, segments, grad_x=grad_x, kept=None)

    return Op(name, rows.shape(weights, segments.ptr.shape[0] - 1, weighting.table.shape[0]), run)


def _update(name: str, rows: Rows, weights: GatedWeights) -> Op:
    assert rows.dense is not None
    out, grad_x = torch.zeros_like(rows.dense.x), torch.zeros_like(rows.dense.x)

    def run() -> None:
        gated_update.forward(rows, weights, out=out, keep=None)
        gated_update.backward(out, rows, weights, grad_x=grad_x, kept=None)

    return Op(name, rows.shape(weights), run)
