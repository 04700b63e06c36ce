"""A graph of fixed size says of its system what the graph of the system alone says."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from ase import Atoms
from closeness import assert_equal_to_rounding
from hypothesis import given, settings
from hypothesis import strategies as st
from structures import STRUCTURES

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.evaluation.source import Forces, load_weights
from ase_fastchgnet.graph import Cutoffs, DeviceNeighborCache, GraphBatch
from ase_fastchgnet.graph.device_pairing import Sizes
from ase_fastchgnet.graph.fixed_graph import Capacity, FixedGraph, Summary, bucket, capacity_for, sizes_within
from ase_fastchgnet.graph.validate import read_geometry
from ase_fastchgnet.model.engine import Engine

CPU = torch.device("cpu")
SMALL = [name for name, atoms in STRUCTURES.items() if len(atoms) <= 16]


def sizes(graph: GraphBatch) -> Sizes:
    return Sizes(graph.n_bonds, len(graph.short_bonds), graph.n_angles)


class Moving:
    """A system with its graph and its graph of fixed size."""

    def __init__(
        self, atoms: Atoms, cutoffs: Cutoffs, capacity: Capacity | None = None, skin: float = 1.0, hold: float = 0.0
    ) -> None:
        self.atoms = atoms.copy()
        self.cache = DeviceNeighborCache(cutoffs, skin)
        graph = self.cache.graph(self.atoms)
        self.reference = self.cache.reference
        assert self.reference is not None
        candidates, held = self.reference.candidates, Cutoffs(cutoffs.atom + hold, cutoffs.bond + hold)
        counted = sizes_within(candidates, graph.positions, graph.cell[0], held)
        assert hold > 0 or counted == sizes(graph)
        self.capacity = capacity or capacity_for(candidates.n_bonds, counted)
        self.fixed = FixedGraph(cutoffs, read_geometry(self.atoms, 0), self.capacity, CPU, hold)
        self.fixed.load(candidates)

    def choose(self) -> Summary:
        self.fixed.place(read_geometry(self.atoms, 0))
        self.topology, row = self.fixed.choose()
        return Summary(*row.tolist())

    def graphs(self) -> tuple[GraphBatch, GraphBatch]:
        """That of the system alone, and the one of fixed size with the bonds that were chosen last."""
        graph = self.cache.graph(self.atoms)
        assert self.cache.reference is self.reference
        self.fixed.place(read_geometry(self.atoms, 0))
        return graph, self.fixed.graph(self.topology)

    def both(self) -> tuple[GraphBatch, GraphBatch, Summary]:
        """The same with bonds that are chosen now."""
        summary = self.choose()
        return *self.graphs(), summary


def assert_same_results(engine: Engine, fixed: GraphBatch, graph: GraphBatch, name: str) -> None:
    """To rounding, of the first system of `fixed`, which is the only one of `graph`."""
    alone, found, n = engine.evaluate(graph), engine.evaluate(fixed), graph.n_atoms
    assert alone.forces is not None
    assert found.forces is not None
    assert found.virial is not None
    for ours, theirs in [
        (found.atom_energies[:n], alone.atom_energies),
        (found.magmoms[:n], alone.magmoms),
        (found.forces[:n], alone.forces),
        (found.virial[:1], alone.virial),
    ]:
        assert_equal_to_rounding(ours, theirs, scale=1.0, what=name)


@pytest.mark.parametrize("model", ["0.3.0", "0.2.0"])  # with and without layers that write into systems without angles
def test_the_filler_changes_nothing_of_what_the_model_says_of_the_system(model: str) -> None:
    engine = Engine(load_checkpoint(model), dtype=torch.float64)
    cutoffs = Cutoffs(engine.config.atom_cutoff, engine.config.bond_cutoff)
    for name in SMALL:
        graph, fixed, summary = Moving(STRUCTURES[name], cutoffs).both()
        assert (summary.long + summary.short, summary.short, summary.angles) == sizes(graph), name
        assert_same_results(engine, fixed, graph, name)


@pytest.mark.parametrize(
    ("model", "forces"), [("0.3.0", "conservative"), ("r2scan", "conservative"), ("0.3.0", "direct")]
)
def test_bonds_that_were_chosen_before_serve_until_atoms_have_moved_by_half_the_hold(
    model: str, forces: Forces
) -> None:
    checkpoint, rng, hold = load_weights(model, forces), np.random.default_rng(2), 0.3
    engine = Engine(checkpoint, dtype=torch.float64, forces=forces)
    cutoffs, changed = Cutoffs(engine.config.atom_cutoff, engine.config.bond_cutoff), 0
    for name in SMALL:
        moving = Moving(STRUCTURES[name], cutoffs, hold=hold)
        before, start = moving.choose(), moving.atoms.positions.copy()
        n_before = sizes(moving.graphs()[0])
        assert (before.long + before.short, before.short, before.angles) >= n_before
        for _ in range(2):
            way = rng.normal(size=start.shape)
            moving.atoms.positions = start + 0.5 * hold * way / np.linalg.norm(way, axis=1, keepdims=True)
            graph, fixed = moving.graphs()
            assert_same_results(engine, fixed, graph, name)
            changed += sizes(graph) != n_before
    assert changed > len(SMALL)


def test_farther_than_that_they_do_not() -> None:
    """Or what the test above shows would be no merit of the hold."""
    atoms = Atoms("Si3", positions=[[0, 0, 0], [2.4, 0, 0], [0, 0, 3.35]], cell=[20, 20, 20], pbc=True)
    moving = Moving(atoms, Cutoffs(), skin=2.0, hold=0.3)
    moving.choose()
    engine = Engine(load_checkpoint("0.3.0"), dtype=torch.float64)
    moving.atoms.positions[2, 2] = 2.8  # an angle more
    fresh, held = (float(engine.evaluate(graph).atom_energies[:3].sum()) for graph in moving.graphs())
    assert abs(fresh - held) > 1e-3


def test_an_atom_is_alone_if_it_may_become_so_while_the_choice_holds() -> None:
    for distance, alone in [(5.6, 0), (5.8, 2), (6.1, 2), (6.3, 2)]:
        atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, distance]], cell=[20, 20, 20], pbc=True)
        summary = Moving(atoms, Cutoffs(), hold=0.3).choose()
        assert summary.alone == alone
        assert summary.long == (distance < 6.3)
        assert summary.shortest == pytest.approx(distance, abs=1e-12)


@pytest.mark.parametrize("name", ["LiMnO2 skewed", "slab on its side", "benzene in a box"])
def test_while_edges_come_and_go_sizes_stay_and_results_agree(name: str) -> None:
    rng, moving = np.random.default_rng(1), Moving(STRUCTURES[name], Cutoffs(), skin=2.0)
    engine, shapes, seen = Engine(load_checkpoint("0.3.0"), dtype=torch.float64), set(), set()
    for _ in range(8):
        moving.atoms.positions += rng.normal(scale=0.02, size=(len(moving.atoms), 3))
        moving.atoms.set_cell(moving.atoms.cell.array * rng.uniform(0.998, 1.002), scale_atoms=True)
        graph, fixed, summary = moving.both()
        assert summary.fits(moving.capacity)
        seen.add(sizes(graph))
        shapes.add(tuple(getattr(fixed, field.name).shape for field in fields(fixed)))
        ours, theirs = engine.evaluate(fixed).forces, engine.evaluate(graph).forces
        assert ours is not None
        assert theirs is not None
        assert_equal_to_rounding(ours[: len(theirs)], theirs, scale=1.0)
    assert len(shapes) == 1
    assert len(seen) > (name != "benzene in a box")  # which has as many as before


def assert_well_formed(graph: GraphBatch, capacity: Capacity) -> None:
    """Sizes are those promised, and every index is in range: a kernel reads nothing that is not there."""
    n_edges = 2 * capacity.sizes.bonds
    assert sizes(graph) == capacity.sizes
    for index, limit in [
        (graph.center, graph.n_atoms),
        (graph.neighbor, graph.n_atoms),
        (graph.bond_of_edge, graph.n_bonds),
        (graph.edges_of_bond, n_edges),
        (graph.short_bonds, graph.n_bonds),
        (graph.edges_of_angle, n_edges),
    ]:
        assert (index >= 0).all()
        assert (index < limit).all()
    for ptr, total in [(graph.edge_ptr, n_edges), (graph.angle_ptr, capacity.angles)]:
        assert ptr[0] == 0
        assert ptr[-1] == total
        assert (ptr.diff() >= 0).all()
    bonds = torch.arange(graph.n_bonds, dtype=torch.int32)
    assert torch.equal(graph.bond_of_edge[graph.edges_of_bond.long()], bonds[:, None].expand(-1, 2))
    assert torch.equal(graph.center, torch.repeat_interleave(graph.edge_ptr.diff()).to(torch.int32))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.tuples(*(st.integers(1, most) for most in (200, 60, 1200))), st.floats(0.8, 1.3))
def test_a_system_that_does_not_fit_is_said_so_and_its_graph_is_harmless(
    room: tuple[int, int, int], stretch: float
) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.set_cell(atoms.cell.array * stretch, scale_atoms=True)
    moving = Moving(atoms, Cutoffs(), Capacity(2000, *room))
    graph, fixed, summary = moving.both()
    long, short, angles = graph.n_bonds - len(graph.short_bonds), len(graph.short_bonds), graph.n_angles
    fits = long <= room[0] and short < room[1] and angles <= room[2]
    assert summary.fits(moving.capacity) is fits
    assert_well_formed(fixed, moving.capacity)
    on_real_atoms = int(fixed.edge_ptr[len(atoms)])
    assert on_real_atoms == (graph.n_edges if fits else 0)


def test_the_largest_bond_of_the_filler_is_beyond_the_cutoff_and_shared_out_among_its_atoms() -> None:
    moving = Moving(STRUCTURES["LiMnO2"].repeat((3, 3, 3)), Cutoffs())
    graph, fixed, _ = moving.both()
    engine = Engine(load_checkpoint("0.3.0"))
    lengths = engine.forward(fixed).geometry.length
    assert (lengths[graph.n_bonds :] > Cutoffs().atom).all()
    degrees = fixed.edge_ptr.diff()
    assert degrees[graph.n_atoms :].max() <= degrees[: graph.n_atoms].max()
    assert fixed.angle_ptr.diff()[len(graph.short_bonds) :].max() <= 2 * fixed.angle_ptr.diff().double().mean()


def test_choosing_asks_the_device_for_nothing() -> None:
    """Meta tensors have no values: whatever would wait for one, or make a tensor as large as one says, fails."""
    now = read_geometry(STRUCTURES["LiMnO2"], 0)
    capacity = Capacity(500, 300, 100, 1000)
    fixed = FixedGraph(Cutoffs(), now, capacity, torch.device("meta"), 0.2)
    topology, row = fixed.choose()
    assert row.shape == (len(Summary._fields),)
    assert sizes(fixed.graph(topology)) == capacity.sizes


@given(st.integers(0, 2**31))
def test_a_bucket_has_a_little_room_and_there_are_few_of_them(size: int) -> None:
    assert size + 4 * (math.sqrt(size) - 1) <= bucket(size) <= 1.2 * (size + 4 * math.sqrt(size) + 8) + 8
    assert bucket(size + 1) >= bucket(size)
    assert bucket(size) % 8 == 0
    assert len({bucket(size + size * k // 100) for k in range(100)}) <= 10
