"""CHGNet with trainable weights, differentiable twice."""

import hashlib
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model import reference
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.config import REFERENCE_ENERGIES, ModelConfig
from ase_fastchgnet.model.parameters import Parameters


class NetworkOutput(NamedTuple):
    """Predictions for a batch, differentiable with respect to the weights; float64."""

    energies: Tensor  # (systems,) eV, of the whole system, reference energies included
    magmoms: Tensor  # (atoms,) μ_B, absolute values
    forces: Tensor | None  # (atoms, 3) eV/Å; None if they were not asked for
    stress: Tensor | None  # (systems, 3, 3) eV/Å³, tension positive; zero where a cell spans no space


class Network(torch.nn.Module):
    """CHGNet with trainable weights.

    Parameters have stock's names, so `state_dict()` is that of a stock checkpoint.  Those of the last angle update,
    which nothing reads, and the reference energies are frozen; every other one takes part in every step, whatever is
    in the batch, as DistributedDataParallel wants it.
    """

    def __init__(self, checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = checkpoint.config
        last_update = f"angle_layers.{self.config.n_blocks - 2}."
        for name, tensor in checkpoint.parameters.to_state_dict(self.config).items():
            frozen = name == REFERENCE_ENERGIES or name.startswith(last_update)
            # Reference energies are thousands of eV in a cell, and are what every energy is measured from.
            kept = torch.float64 if name == REFERENCE_ENERGIES else dtype
            _plant(self, name, torch.nn.Parameter(tensor.to(kept, copy=True), requires_grad=not frozen))

    def forward(self, graph: GraphBatch, *, forces: Literal["conservative", "direct"] | None) -> NetworkOutput:
        """Energies and magnetic moments; forces and stress by differentiation ("conservative") or from the heads."""
        p = self.weights()
        if forces == "direct":
            raise NotImplementedError("direct")
        differentiate = forces == "conservative"
        dtype = p.embedding.dtype
        with torch.enable_grad() if differentiate else torch.set_grad_enabled(torch.is_grad_enabled()):
            positions = graph.positions.detach().clone().to(dtype).requires_grad_(differentiate)
            strain = torch.zeros_like(graph.cell, dtype=dtype).requires_grad_(differentiate)
            energy, magmoms = _energies(p, self.config, graph, positions, strain)
            force = stress = None
            if differentiate:
                gradient, virial = torch.autograd.grad(
                    energy.sum(), (positions, strain), create_graph=self.training, materialize_grads=True
                )
                volume = graph.volume()
                force = -gradient.double()
                stress = virial.double() / volume.where(volume > 0, torch.inf)[:, None, None]
        energy = energy.double() + p.reference_energies.index_select(0, graph.numbers.long() - 1)
        total = energy.new_zeros(graph.n_systems).index_add(0, graph.system_of_atom.long(), energy)
        return NetworkOutput(total, magmoms.double(), force, stress)

    def weights(self) -> Parameters:
        """The parameters as the records that the model's formulas are written in."""
        return Parameters.of(dict(self.named_parameters()), self.config)

    def checkpoint(self, name: str) -> Checkpoint:
        """The present weights, to be saved by `save_checkpoint` or used by the calculator."""
        state = {key: tensor.detach().to("cpu", torch.float64) for key, tensor in self.state_dict().items()}
        digest = hashlib.sha256()
        for key, tensor in state.items():
            digest.update(key.encode() + tensor.numpy().tobytes())
        parameters = Parameters.from_state_dict(state, self.config)
        return Checkpoint(name=name, config=self.config, parameters=parameters, sha256=digest.hexdigest())


def _plant(root: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
    """Registers a parameter under its dotted name, making the modules on the way."""
    *path, leaf = name.split(".")
    for step in path:
        if step not in root._modules:
            root.add_module(step, torch.nn.Module())
        root = cast(torch.nn.Module, root._modules[step])
    root.register_parameter(leaf, parameter)


def _energies(
    p: Parameters, config: ModelConfig, graph: GraphBatch, positions: Tensor, strain: Tensor
) -> tuple[Tensor, Tensor]:
    vector = reference.edge_vectors(graph, positions, strain)
    length = vector.norm(dim=1)[graph.edges_of_bond[:, 0].long()]
    atom_basis = reference.radial_basis(length, p.atom_frequencies, config.atom_cutoff, config)
    bond_basis = reference.radial_basis(length, p.bond_frequencies, config.bond_cutoff, config)
    atom_weights, bond_weights = linear(atom_basis, p.atom_weights), linear(bond_basis, p.bond_weights)
    has_angles = reference.systems_with_angles(graph)[
        graph.system_of_atom[graph.center[graph.edges_of_bond[:, 0]]].long()
    ]
    atoms = p.embedding[graph.numbers.long() - 1]
    bonds = linear(atom_basis, p.bond_embedding)
    angles = linear(reference.angular_basis(vector, graph, p.angle_frequencies), p.angle_embedding)
    sites = atoms
    for block, atom_conv in enumerate(p.atom_convs):
        sites = atoms
        message = reference.gated_mlp(
            torch.cat([atoms[graph.center], bonds[graph.bond_of_edge], atoms[graph.neighbor]], 1), atom_conv.mlp
        )
        message = message * atom_weights[graph.bond_of_edge]
        atoms = atoms + reference.apply(reference.sum_rows(message, graph.center, len(atoms)), atom_conv.out)
        if block == config.n_blocks - 1:
            break
        bond_conv, angle_update = p.bond_convs[block], p.angle_updates[block]
        receiving, sending = graph.bond_of_edge[graph.edges_of_angle.long()].unbind(1)
        center = graph.center[graph.edges_of_angle[:, 0].long()]
        message = reference.gated_mlp(
            torch.cat([bonds[receiving], bonds[sending], angles, atoms[center]], 1), bond_conv.mlp
        )
        message = message * bond_weights[receiving] * bond_weights[sending]
        update = reference.apply(reference.sum_rows(message, receiving, len(bonds)), bond_conv.out)
        bonds = bonds + torch.where(has_angles[:, None], update, 0.0)
        if block < config.n_blocks - 2:
            angles = angles + reference.gated_mlp(
                torch.cat([bonds[receiving], bonds[sending], angles, atoms[center]], 1), angle_update.mlp
            )
    magmoms = reference.apply(sites, p.site_wise)[:, 0].abs()
    if p.readout_norm is not None:
        atoms = reference.normalise(atoms, p.readout_norm)
    return reference.read_out(atoms, p.readout), magmoms
