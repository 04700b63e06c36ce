"""CHGNet in plain torch and autograd: the readable definition of the model, and the oracle of the fast engine.

Deng et al., Nature Machine Intelligence 5, 1031 (2023); names in brackets are those of stock's `chgnet/model`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.output import ModelOutput
from ase_fastchgnet.model.parameters import GatedMLP, LayerNorm, Linear


@dataclass(frozen=True, slots=True)
class ReferenceTape:
    """A finished forward pass, ready to be differentiated."""

    output: ModelOutput  # detached
    energies: Tensor  # (atoms,) eV, without reference energies
    magmoms: Tensor  # (atoms,) μ_B
    positions: Tensor  # (atoms, 3), leaf
    strain: Tensor  # (systems, 3, 3), leaf


class ReferenceModel:
    """The whole model by autograd; slow, and the definition of what the engine computes."""

    def __init__(self, checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        self.config = checkpoint.config
        self.dtype = dtype
        self.device = device
        self.parameters = checkpoint.parameters.to(dtype=dtype, device=device)

    def evaluate(self, graph: GraphBatch, *, gradient: bool = True) -> ModelOutput:
        """Energies, magnetic moments and embeddings; with `gradient`, forces and virials too."""
        tape = self.forward(graph)
        if not gradient:
            return tape.output
        forces, virial = self.backward(tape)
        return tape.output._replace(forces=forces, virial=virial)

    def forward(self, graph: GraphBatch) -> ReferenceTape:
        """Everything but the gradient."""
        with torch.inference_mode(False), torch.enable_grad():
            # Copies: a leaf must not share memory with the caller's graph, nor be an inference tensor.
            positions = graph.positions.clone().to(self.dtype).requires_grad_()
            strain = torch.zeros_like(graph.cell, dtype=self.dtype).requires_grad_()
            return self._forward(graph, positions, strain)

    def backward(self, tape: ReferenceTape) -> tuple[Tensor, Tensor]:
        """Forces (atoms, 3) = -∂E/∂positions and virials (systems, 3, 3) = ∂E/∂strain."""
        grad_positions, grad_strain = torch.autograd.grad(
            tape.energies.sum(), (tape.positions, tape.strain), retain_graph=True, materialize_grads=True
        )
        return -grad_positions.double(), grad_strain.double()

    def _forward(self, graph: GraphBatch, positions: Tensor, strain: Tensor) -> ReferenceTape:
        p, config = self.parameters, self.config
        vector = edge_vectors(graph, positions, strain)
        length = vector.norm(dim=1)[graph.edges_of_bond[:, 0].long()]
        atom_basis = radial_basis(length, p.atom_frequencies, config.atom_cutoff, config)
        bond_basis = radial_basis(length, p.bond_frequencies, config.bond_cutoff, config)
        atom_weights, bond_weights = linear(atom_basis, p.atom_weights), linear(bond_basis, p.bond_weights)
        has_angles = systems_with_angles(graph)[graph.system_of_atom[graph.center[graph.edges_of_bond[:, 0]]].long()]

        atoms = p.embedding[graph.numbers.long() - 1]
        bonds = linear(atom_basis, p.bond_embedding)
        angles = linear(angular_basis(vector, graph, p.angle_frequencies), p.angle_embedding)
        site_embeddings = atoms
        for block, atom_conv in enumerate(p.atom_convs):
            site_embeddings = atoms
            message = gated_mlp(
                torch.cat([atoms[graph.center], bonds[graph.bond_of_edge], atoms[graph.neighbor]], 1), atom_conv.mlp
            )
            message = message * atom_weights[graph.bond_of_edge]
            atoms = atoms + apply(sum_rows(message, graph.center, len(atoms)), atom_conv.out)
            if block == config.n_blocks - 1:
                break
            # [BondConv] and [AngleUpdate]
            bond_conv, angle_update = p.bond_convs[block], p.angle_updates[block]
            receiving, sending = graph.bond_of_edge[graph.edges_of_angle.long()].unbind(1)
            center = graph.center[graph.edges_of_angle[:, 0].long()]
            message = gated_mlp(torch.cat([bonds[receiving], bonds[sending], angles, atoms[center]], 1), bond_conv.mlp)
            message = message * bond_weights[receiving] * bond_weights[sending]
            # Stock skips BondConv, bias included, where there is no angle.
            update = apply(sum_rows(message, receiving, len(bonds)), bond_conv.out)
            updated = bonds + torch.where(has_angles[:, None], update, 0.0)
            read = bonds if config.parallel_updates else updated
            angles = angles + gated_mlp(
                torch.cat([read[receiving], read[sending], angles, atoms[center]], 1), angle_update.mlp
            )
            bonds = updated
        magmoms = apply(site_embeddings, p.site_wise)[:, 0].abs()
        if p.readout_norm is not None:
            atoms = normalise(atoms, p.readout_norm)
        energies = read_out(atoms, p.readout)
        output = ModelOutput(
            atom_energies=(energies.double() + p.reference_energies.double()[graph.numbers.long() - 1]).detach(),
            magmoms=magmoms.double().detach(),
            site_embeddings=site_embeddings.detach(),
            final_embeddings=atoms.detach(),
            forces=None,
            virial=None,
        )
        return ReferenceTape(output, energies, magmoms, positions, strain)


def edge_vectors(graph: GraphBatch, positions: Tensor, strain: Tensor) -> Tensor:
    """r[e] = (positions[centre] - positions[neighbour] - image @ cell) (1 + strain), (edges, 3) Å."""
    system = graph.system_of_atom[graph.center].long()
    shift = torch.einsum("ei,eij->ej", graph.image.to(positions.dtype), graph.cell.to(positions.dtype)[system])
    vector = positions[graph.center] - positions[graph.neighbor] - shift
    return vector + torch.einsum("ei,eij->ej", vector, strain[system])


def radial_basis(r: Tensor, frequencies: Tensor, cutoff: float, config: ModelConfig) -> Tensor:
    """√(2/c) sin(f_k r/c)/r · u(r/c), (bonds, n_radial).  [RadialBessel, CutoffPolynomial]"""
    x, p = r[:, None] / cutoff, config.envelope_exponent
    envelope = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    basis = math.sqrt(2 / cutoff) * torch.sin(frequencies * x) / r[:, None]
    return torch.where(x < 1, envelope * basis, 0.0)


def angular_basis(vector: Tensor, graph: GraphBatch, frequencies: Tensor) -> Tensor:
    """[1/√2, sin(f_k θ), cos(f_k θ)] / √π, (angles, n_angular).  [AngleEncoder, Fourier]"""
    unit = vector / vector.norm(dim=1, keepdim=True)
    first, second = graph.edges_of_angle.long().unbind(1)
    # CHGNet scales the cosine so that acos' stays finite for parallel edges.
    theta = torch.acos((unit[first] * unit[second]).sum(1) * (1 - 1e-6))
    phase = torch.outer(theta, frequencies)
    constant = torch.full_like(theta[:, None], 1 / math.sqrt(2))
    return torch.cat([constant, torch.sin(phase), torch.cos(phase)], 1) / math.sqrt(math.pi)


def gated_mlp(x: Tensor, mlp: GatedMLP) -> Tensor:
    """silu(norm(core(x))) · sigmoid(norm(gate(x))).  [GatedMLP]"""
    core, gate = chain(x, mlp.core), chain(x, mlp.gate)
    if mlp.core_norm is not None and mlp.gate_norm is not None:
        core, gate = normalise(core, mlp.core_norm), normalise(gate, mlp.gate_norm)
    return silu(core) * torch.sigmoid(gate)


def chain(x: Tensor, layers: tuple[Linear, ...]) -> Tensor:
    """Linear maps with a silu between them."""
    for layer in layers[:-1]:
        x = silu(apply(x, layer))
    return apply(x, layers[-1])


def read_out(atoms: Tensor, layers: tuple[Linear, ...]) -> Tensor:
    """Energy of each atom without its reference energy, (atoms,) eV."""
    return chain(atoms, layers)[:, 0]


def apply(x: Tensor, layer: Linear) -> Tensor:
    """x Wᵀ + b."""
    return linear(x, layer.weight, layer.bias)


def normalise(x: Tensor, norm: LayerNorm) -> Tensor:
    """LayerNorm over the features."""
    return layer_norm(x, (x.shape[1],), norm.weight, norm.bias)


def sum_rows(x: Tensor, owner: Tensor, n_owners: int) -> Tensor:
    """out[i] = Σ_{rows owned by i} x[row].  [aggregate]"""
    return x.new_zeros(n_owners, x.shape[1]).index_add(0, owner.long(), x)


def systems_with_angles(graph: GraphBatch) -> Tensor:
    """Whether each system has an angle at all, (systems,) bool."""
    owners = graph.system_of_atom[graph.center[graph.edges_of_angle[:, 0].long()].long()].long()
    return torch.bincount(owners, minlength=graph.n_systems) > 0
