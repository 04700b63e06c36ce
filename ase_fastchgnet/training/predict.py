"""What a model says of structures, as labels."""

from collections.abc import Iterator, Sequence

import torch
from ase import Atoms

from ase_fastchgnet.graph import Cutoffs, GraphBatch, NeighborCache, concatenate
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.training.labels import Labelled

BATCH_ROWS = 20_000  # edges + angles in one batch


def predict(
    structures: Sequence[Atoms], checkpoint: Checkpoint, *, gradient: bool = True, device: torch.device | str = "cpu"
) -> list[Labelled]:
    """Energy, magnetic moments and, with `gradient`, forces and stress of each structure by the model, in float32."""
    engine = Engine(checkpoint, dtype=torch.float32, device=str(device))
    cutoffs = Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff)
    found: list[Labelled] = []
    for batch in _batches(structures, cutoffs):
        here = structures[len(found) : len(found) + batch.n_systems]
        found += _labels(here, batch.to(device), engine, gradient, checkpoint.name)
    return found


def _batches(structures: Sequence[Atoms], cutoffs: Cutoffs) -> Iterator[GraphBatch]:
    """Consecutive structures, as many as BATCH_ROWS allow."""
    graphs: list[GraphBatch] = []
    rows = 0
    for number, atoms in enumerate(structures):
        graph = NeighborCache(cutoffs).graph(atoms, number)
        if graphs and rows + graph.n_edges + graph.n_angles > BATCH_ROWS:
            yield concatenate(graphs)
            graphs, rows = [], 0
        graphs.append(graph)
        rows += graph.n_edges + graph.n_angles
    if graphs:
        yield concatenate(graphs)


def _labels(
    structures: Sequence[Atoms], graph: GraphBatch, engine: Engine, gradient: bool, name: str
) -> Iterator[Labelled]:
    output = engine.evaluate(graph, gradient=gradient)
    counts = graph.atom_ptr.diff().tolist()
    energies = [float(each.sum()) for each in output.atom_energies.split(counts)]
    magmoms = [each.cpu().numpy() for each in output.magmoms.split(counts)]
    forces = stress = None
    if output.forces is not None and output.virial is not None:
        forces = [each.cpu().numpy() for each in output.forces.split(counts)]
        stress = (output.virial / graph.volume()[:, None, None]).cpu().numpy()
    for number, atoms in enumerate(structures):
        yield Labelled(
            atoms=atoms,
            energy=energies[number],
            forces=None if forces is None else forces[number],
            stress=None if stress is None or not atoms.pbc.all() else stress[number],
            magmoms=magmoms[number],
            source=name,
        )
