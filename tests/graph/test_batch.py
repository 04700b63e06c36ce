"""A batch is its systems laid end to end."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from ase import Atoms
from graph.compare import assert_identical, edges_of
from hypothesis import given, settings
from hypothesis import strategies as st
from structures import STRUCTURES, named

import ase_fastchgnet.graph
from ase_fastchgnet.graph import Cutoffs, GraphBatch, NeighborCache, build_batch, concatenate, isolated_atoms
from ase_fastchgnet.graph.batch import check_index_range

CUTOFFS = Cutoffs()
SMALL = named(lambda atoms: len(atoms) <= 16)


def part(batch: GraphBatch, system: int) -> GraphBatch:
    """One system cut out of a batch, renumbered from zero: the inverse of concatenate()."""
    a0, a1 = batch.atom_ptr[system : system + 2].tolist()
    e0, e1 = batch.edge_ptr[[a0, a1]].tolist()
    bonds = (batch.edges_of_bond[:, 0] >= e0) & (batch.edges_of_bond[:, 0] < e1)
    b0, b1 = int((batch.edges_of_bond[:, 0] < e0).sum()), int(bonds.sum())
    short = (batch.short_bonds >= b0) & (batch.short_bonds < b0 + b1)
    s0, s1 = int((batch.short_bonds < b0).sum()), int(short.sum())
    g0, g1 = batch.angle_ptr[[s0, s0 + s1]].tolist()
    return GraphBatch(
        cell=batch.cell[system, None],
        pbc=batch.pbc[system, None],
        atom_ptr=batch.atom_ptr[system : system + 2] - a0,
        numbers=batch.numbers[a0:a1],
        positions=batch.positions[a0:a1],
        system_of_atom=batch.system_of_atom[a0:a1] - system,
        edge_ptr=batch.edge_ptr[a0 : a1 + 1] - e0,
        center=batch.center[e0:e1] - a0,
        neighbor=batch.neighbor[e0:e1] - a0,
        image=batch.image[e0:e1],
        bond_of_edge=batch.bond_of_edge[e0:e1] - b0,
        edges_of_bond=batch.edges_of_bond[bonds] - e0,
        short_bonds=batch.short_bonds[short] - b0,
        angle_ptr=batch.angle_ptr[s0 : s0 + s1 + 1] - g0,
        edges_of_angle=batch.edges_of_angle[g0:g1] - e0,
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(SMALL), min_size=1, max_size=6))
def test_every_system_of_a_batch_is_its_graph_alone(names: list[str]) -> None:
    batch = build_batch([STRUCTURES[name] for name in names], CUTOFFS)
    assert batch.n_systems == len(names)
    for system, name in enumerate(names):
        assert_identical(part(batch, system), build_batch([STRUCTURES[name]], CUTOFFS))


def test_it_does_not_matter_in_which_steps_graphs_are_concatenated() -> None:
    a, b, c = (build_batch([STRUCTURES[name]], CUTOFFS) for name in ("NaCl", "wire", "LiMnO2 skewed"))
    together = concatenate([a, b, c])
    assert_identical(together, concatenate([concatenate([a, b]), c]))
    assert_identical(together, concatenate([a, concatenate([b, c])]))


def test_one_graph_is_concatenated_to_itself() -> None:
    graph = build_batch([STRUCTURES["NaCl"]], CUTOFFS)
    assert concatenate([graph]) is graph


def test_floats_are_float64_and_indices_int32() -> None:
    for names in (["NaCl"], ["one atom, no cell"], ["NaCl", "one atom, no cell"]):
        batch = build_batch([STRUCTURES[name] for name in names], CUTOFFS)
        for field in fields(GraphBatch):
            expected = {"cell": torch.float64, "positions": torch.float64, "pbc": torch.bool}
            tensor = getattr(batch, field.name)
            assert tensor.dtype == expected.get(field.name, torch.int32), field.name
            assert tensor.is_contiguous(), field.name


def test_geometry_comes_through_unchanged() -> None:
    atoms = [STRUCTURES[name] for name in ("slab on its side", "triclinic scattered", "water, no cell")]
    batch = build_batch(atoms, CUTOFFS)
    assert np.array_equal(batch.positions, np.concatenate([a.positions for a in atoms]))
    assert np.array_equal(batch.cell, [a.cell.array for a in atoms])
    assert np.array_equal(batch.pbc, [a.pbc for a in atoms])
    assert np.array_equal(batch.numbers, np.concatenate([a.numbers for a in atoms]))


def test_counts_and_volumes() -> None:
    atoms = [STRUCTURES[name] for name in ("triclinic left-handed", "water, no cell")]
    batch = build_batch(atoms, CUTOFFS)
    assert (batch.n_systems, batch.n_atoms, batch.n_edges) == (2, 16, 886 + 6)
    assert (batch.n_bonds, batch.n_angles) == (443 + 3, 870 + 6)
    assert batch.volume().tolist() == pytest.approx([atoms[0].get_volume(), 0])


def test_isolated_atoms_are_those_without_an_edge() -> None:
    names = ["one atom, no cell", "NaCl", "dimer too far to bond", "Cu gas, atoms 7 Å apart", "dimer in vacuum"]
    batch = build_batch([STRUCTURES[name] for name in names], CUTOFFS)
    assert isolated_atoms(batch).tolist() == [0, 3, 4, 5]
    assert isolated_atoms(build_batch([STRUCTURES["Si"]], CUTOFFS)).tolist() == []


def test_a_batch_on_the_same_device_is_not_copied() -> None:
    batch = build_batch([STRUCTURES["Si"]], CUTOFFS)
    assert batch.to("cpu") is batch
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to("meta")
    assert {getattr(moved, field.name).device.type for field in fields(GraphBatch)} == {"meta"}
    assert build_batch([STRUCTURES["Si"]], CUTOFFS, device="meta").positions.device.type == "meta"


def test_nothing_is_no_batch() -> None:
    with pytest.raises(ValueError, match="no structures"):
        build_batch([], CUTOFFS)
    with pytest.raises(ValueError, match="empty list"):
        concatenate([])


def test_counts_beyond_32_bits_are_refused_before_anything_is_allocated() -> None:
    check_index_range(edges=2**31 - 1)
    with pytest.raises(OverflowError, match="2147483648 angles"):
        check_index_range(edges=5, angles=2**31)
    graph = build_batch([STRUCTURES["one atom, no cell"]], CUTOFFS)
    vast = replace(graph, edges_of_angle=torch.empty((2**31 - 1, 2), dtype=torch.int32, device="meta"))
    with pytest.raises(OverflowError, match="4294967294 angles"):
        concatenate([vast, vast])


def test_caches_carry_each_structure_along() -> None:
    atoms = [STRUCTURES[name].copy() for name in ("NaCl", "wire", "Si rattled")]
    caches = [NeighborCache(CUTOFFS, skin=1.0) for _ in atoms]
    for step in range(4):
        for k, structure in enumerate(atoms):
            structure.rattle(0.01, seed=10 * step + k)
        assert_identical(build_batch(atoms, CUTOFFS, caches=caches), build_batch(atoms, CUTOFFS))
    assert [cache.builds for cache in caches] == [1, 1, 1]


def test_caches_must_fit_the_structures_and_the_cutoffs() -> None:
    atoms = STRUCTURES["NaCl"]
    with pytest.raises(ValueError, match="one cache per structure is needed, got 1 for 2"):
        build_batch([atoms, atoms], CUTOFFS, caches=[NeighborCache(CUTOFFS)])
    with pytest.raises(ValueError, match=r"cache 1 was made for Cutoffs\(atom=5.0, bond=3.0\)"):
        build_batch([atoms, atoms], CUTOFFS, caches=[NeighborCache(CUTOFFS), NeighborCache(Cutoffs(5.0, 3.0))])


@pytest.mark.parametrize("radii", [(6.0, 7.0), (0.0, 0.0), (6.0, -1.0), (np.nan, 3.0), (np.inf, 3.0)])
def test_cutoffs_that_make_no_sense_are_refused(radii: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="0 < bond <= atom"):
        Cutoffs(*radii)


def test_atoms_are_not_changed_by_building_their_graph() -> None:
    atoms = STRUCTURES["LiMnO2 scattered"].copy()
    build_batch([atoms], CUTOFFS)
    assert atoms == STRUCTURES["LiMnO2 scattered"]


def test_edges_of_a_batch_count_atoms_from_the_start_of_the_batch() -> None:
    pair = Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]])
    batch = build_batch([pair, pair], CUTOFFS)
    assert edges_of(batch) == [(0, 1, (0, 0, 0)), (1, 0, (0, 0, 0)), (2, 3, (0, 0, 0)), (3, 2, (0, 0, 0))]
    assert batch.bond_of_edge.tolist() == [0, 0, 1, 1]
    assert batch.short_bonds.tolist() == [0, 1]
    assert batch.edge_ptr.tolist() == [0, 1, 2, 3, 4]


def test_every_public_name_exists() -> None:
    assert all(hasattr(ase_fastchgnet.graph, name) for name in ase_fastchgnet.graph.__all__)
