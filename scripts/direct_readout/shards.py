"""Perturbed crystals → files of graphs, features of the forward pass and the teacher's derivatives.

The trunk is frozen, so its features never change and are computed once, with the labels, by one evaluation.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ase import Atoms
from torch import Tensor

from ase_fastchgnet.graph import Cutoffs, GraphBatch
from ase_fastchgnet.graph.build import build_batch
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.engine.direct_readout import Ends, Features, ends
from ase_fastchgnet.model.engine.index import build_index

GROUP = 8  # structures in one step of training
MAX_FORCE = 20.0  # eV/Å; what is further off is no structure that a simulation would visit


class Group(NamedTuple):
    """Structures that are learnt from together."""

    graph: GraphBatch
    features: Features  # float16
    ends: Ends
    forces: Tensor  # (atoms, 3) eV/Å
    virial: Tensor  # (systems, 3, 3) eV
    length: Tensor  # (bonds,) ∂E/∂r, eV/Å
    theta: Tensor  # (angles,) ∂E/∂θ of an angle and its mirror, eV
    kinds: list[str]


def label(structures: list[Atoms], engine: Engine) -> Group | None:
    """Features, forces, virial and the derivatives behind them, by the teacher; None if no structure is reasonable."""
    graph = build_batch(structures, Cutoffs(engine.config.atom_cutoff, engine.config.bond_cutoff))
    tape = engine.forward(graph)
    derivatives = engine.derivatives(tape)
    forces, virial = engine.backward(tape)
    largest = torch.zeros(graph.n_systems, dtype=forces.dtype)
    largest.scatter_reduce_(0, graph.system_of_atom.long(), forces.abs().amax(1), "amax")
    if (largest >= MAX_FORCE).any():
        kept = [atoms for atoms, force in zip(structures, largest.tolist(), strict=True) if force < MAX_FORCE]
        return label(kept, engine) if kept else None
    return Group(
        graph=graph,
        features=Features(*(x.half() for x in engine.features(tape))),
        ends=ends(graph, tape.index),
        forces=forces.float(),
        virial=virial.float(),
        length=derivatives.length.float(),
        theta=derivatives.theta.float(),
        kinds=[atoms.info["kind"] for atoms in structures],
    )


def save(groups: list[Group], path: Path) -> None:
    """Written whole or not at all."""
    partial = path.with_suffix(".part")
    torch.save([_plain(group) for group in groups], partial)
    partial.rename(path)


def load(path: Path) -> list[Group]:
    """What `save` wrote."""
    return [_group(plain) for plain in torch.load(path)]


def _plain(group: Group) -> dict[str, Any]:
    graph = {field.name: getattr(group.graph, field.name) for field in fields(GraphBatch)}
    kept = {name: value for name, value in group._asdict().items() if name != "ends"}  # which follow from the graph
    return {**kept, "graph": graph, "features": group.features._asdict()}


def _group(plain: dict[str, Any]) -> Group:
    graph, features = GraphBatch(**plain["graph"]), Features(**plain["features"])
    return Group(**{**plain, "graph": graph, "features": features, "ends": ends(graph, build_index(graph))})
