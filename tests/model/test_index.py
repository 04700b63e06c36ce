"""The index of a graph: who reads whose row."""

import pytest
import torch
from structures import STRUCTURES

from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.engine.index import build_index

BATCH = ["LiMnO2 rattled", "K bcc, no bond below 3 Å", "one atom, no cell", "Cu fcc", "slab on its side"]


def test_an_index_is_built_without_waiting_for_the_device() -> None:
    """Meta tensors have no values: an operation that needs one to know the size of its result fails."""
    graph = build_batch([STRUCTURES[name] for name in BATCH], Cutoffs())
    on_meta, here = build_index(graph.to("meta")), build_index(graph)
    for name in ("angle_edges", "angle_mirror", "short_center", "has_angles"):
        assert getattr(on_meta, name).shape == getattr(here, name).shape, name
    for one, other in zip(on_meta.short_of_center, here.short_of_center, strict=True):
        assert one.shape == other.shape


@pytest.mark.parametrize("name", BATCH)
def test_short_edges_are_listed_under_the_atom_they_leave_in_the_order_of_edges(name: str) -> None:
    graph = build_batch([STRUCTURES[name]], Cutoffs())
    incidence = build_index(graph).short_of_center
    edge = graph.edges_of_bond[graph.short_bonds.long()].flatten()  # of short edges 2b and 2b + 1
    listed = edge[incidence.messages.long()]
    assert torch.equal(listed, edge.sort().values)
    assert torch.equal(graph.center[listed.long()].bincount(minlength=graph.n_atoms), incidence.messages_ptr.diff())
