"""The fast path: the whole model forward, then its hand-derived adjoint once. No autograd, no global state.

Forces and virial come from one adjoint: with g_b = ∂E/∂r_b of every bond vector, both are sums of g_b.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.engine import angle_block, atom_conv, direct_readout
from ase_fastchgnet.model.engine.angle_block import AngleBlockSaved
from ase_fastchgnet.model.engine.angle_messages import AngleInputs
from ase_fastchgnet.model.engine.atom_conv import AtomConvSaved, BondGradients, BondInputs
from ase_fastchgnet.model.engine.index import GraphIndex, build_index
from ase_fastchgnet.model.engine.weights import pack
from ase_fastchgnet.model.output import ModelOutput
from fastchgnet_kernels import angle_basis, bond_basis, edge_geometry, readout
from fastchgnet_kernels.bond_basis import Basis
from fastchgnet_kernels.edge_geometry import Geometry
from fastchgnet_kernels.gated_message import Scratch, thread_scratch

# Activations are kept for the adjoint up to this amount, op by op; beyond it, blocks are computed again, which takes a
# third more time and next to no memory. In float64 it is twice as much, for as many activations.
KEEP_BYTES = 192 * 2**20


_TOPOLOGY = ("atom_ptr", "center", "neighbor", "edges_of_bond", "short_bonds", "edges_of_angle")


@dataclass(slots=True)
class Tape:
    """A finished forward pass: its output, and what the adjoint needs."""

    output: ModelOutput
    graph: GraphBatch
    index: GraphIndex
    geometry: Geometry
    bonds: BondInputs
    short_basis: Basis
    short_weight: Tensor
    angle_basis: Tensor
    atom_convs: list[AtomConvSaved]
    angle_blocks: list[AngleBlockSaved]  # none where there is no angle
    atoms: Tensor  # (atoms, 64) after the last block
    readout: readout.Kept | None

    def copy(self) -> "Tape":
        """For the adjoint, which drops the layers one by one when it is done with them."""
        return replace(self, atom_convs=[*self.atom_convs], angle_blocks=[*self.angle_blocks])


class InternalGradients(NamedTuple):
    """Derivatives of the energy with respect to what it is a function of; float64."""

    length: Tensor  # (bonds,) eV/Å
    theta: Tensor  # (angles,) eV, of an angle and its mirror together


class Engine:
    """CHGNet with hand-derived gradients; same results as `ReferenceModel`, in less time and memory."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        forces: Literal["conservative", "direct"] = "conservative",
        tf32: bool = False,
    ) -> None:
        if forces == "direct" and not checkpoint.config.direct_readout:
            raise ValueError(f"model {checkpoint.name!r} has no weights for direct forces")
        self.config = checkpoint.config
        self.forces = forces
        self.dtype = dtype
        self.device = device
        self.weights = pack(checkpoint, dtype, device, tf32=tf32)
        self._last_index: tuple[GraphBatch, GraphIndex] | None = None

    def evaluate(self, graph: GraphBatch, *, gradient: bool = True, index: GraphIndex | None = None) -> ModelOutput:
        """Energies, magnetic moments and embeddings; with `gradient`, forces and virials too.

        `index` is that of `graph`, where it is known.
        """
        if not gradient:
            return self.forward(graph).output
        # This tape does not leave here, so what it keeps may lie in memory that the next evaluation uses again.
        tape = self._forward(graph, _Keeper(KEEP_BYTES if self.forces == "conservative" else 0), index)
        forces, virial = self._backward(tape)
        return tape.output._replace(forces=forces, virial=virial)

    def forward(self, graph: GraphBatch) -> Tape:
        """Everything but the gradient."""
        return self._forward(graph, _Keeper(0))

    @torch.inference_mode()
    def _forward(self, graph: GraphBatch, keep: "_Keeper", index: GraphIndex | None = None) -> Tape:
        w, config = self.weights, self.config
        index = self._index(graph) if index is None else index
        geometry = edge_geometry.forward(graph)
        exponent = config.envelope_exponent
        basis = bond_basis.expand(geometry.length, w.atom_frequencies, config.atom_cutoff, exponent)
        short_basis = bond_basis.expand(geometry.short_length, w.bond_frequencies, config.bond_cutoff, exponent)
        bonds = BondInputs(basis, bond_basis.forward(basis, w.atom_weights))
        short_weight = bond_basis.forward(short_basis, w.bond_weights)
        first_angles = angle_basis.forward(geometry.short_unit, index.angle_edges, w.angle_frequencies)

        atoms = w.embedding.index_select(0, graph.numbers - 1)
        short = bond_basis.forward(bond_basis.chosen(basis, graph.short_bonds), w.bond_embedding)
        angles = first_angles
        atom_convs, angle_blocks = [], []
        sites = atoms
        for block, conv in enumerate(w.atom_convs):
            sites = atoms
            kept = keep.take("atom conv", block, graph.n_edges)
            atoms, saved = atom_conv.forward(atoms, short, bonds, index, conv, keep=kept)
            atom_convs.append(saved)
            if block < len(w.bond_convs) and index.n_angles > 0:
                inputs = AngleInputs(atoms, short, angles)
                short, angles, saved_angles = angle_block.forward(inputs, short_weight, index, w, block, keep.take)
                angle_blocks.append(saved_angles)

        energy, normed, kept_by_readout = readout.forward(atoms, w.readout)
        output = ModelOutput(
            atom_energies=energy.double().add_(w.reference_energies.index_select(0, graph.numbers - 1)),
            magmoms=torch.addmm(w.magmom_bias, sites, w.magmom)[:, 0].abs().double(),
            site_embeddings=sites,
            final_embeddings=normed,
            forces=None,
            virial=None,
        )
        return Tape(
            output, graph, index, geometry, bonds, short_basis, short_weight, first_angles,
            atom_convs, angle_blocks, atoms, kept_by_readout,
        )  # fmt: skip

    @torch.inference_mode()
    def backward(self, tape: Tape) -> tuple[Tensor, Tensor]:
        """Forces (atoms, 3) = -∂E/∂positions and virials (systems, 3, 3) = ∂E/∂strain, exact or by the readout."""
        return self._backward(tape.copy())

    @torch.inference_mode()
    def derivatives(self, tape: Tape) -> InternalGradients:
        """The adjoint: derivatives of the energy with respect to bond lengths and angles, float64."""
        return self._derivatives(tape.copy())

    @torch.inference_mode()
    def _backward(self, tape: Tape) -> tuple[Tensor, Tensor]:
        if self.forces == "direct":
            return self._read_out(tape)
        grad = self._derivatives(tape)
        unit, index = tape.geometry.short_unit, tape.index
        grad_unit = angle_basis.backward_theta(grad.theta, unit, index.angle_edges, index.received_ptr)
        return edge_geometry.backward(tape.graph, tape.geometry, grad.length, grad_unit)

    @torch.inference_mode()
    def _derivatives(self, tape: Tape) -> InternalGradients:
        """The adjoint; a layer is dropped from the tape as soon as it is done with, so that its memory is free."""
        w, index = self.weights, tape.index
        grad_bonds = BondGradients(bond_basis.new_grad(tape.bonds.basis), torch.zeros_like(tape.bonds.weight))
        grad_short_weight = torch.zeros_like(tape.short_weight)
        grad_atoms = readout.backward(tape.atoms, w.readout, tape.readout)
        grad_short = torch.zeros_like(tape.atom_convs[0].short)
        grad_angles = None
        for block in reversed(range(len(w.atom_convs))):
            if block < len(tape.angle_blocks):
                saved = tape.angle_blocks.pop()
                if grad_angles is None:
                    grad_angles = torch.zeros_like(saved.bonds.inputs.angles)
                grad_angles = angle_block.backward(
                    AngleInputs(grad_atoms, grad_short, grad_angles), saved,
                    tape.short_weight, index, w, block, grad_weight=grad_short_weight,
                )  # fmt: skip
                del saved
            grad_atoms = atom_conv.backward(
                grad_atoms, tape.atom_convs.pop(), tape.bonds, index, w.atom_convs[block],
                grad_bonds=grad_bonds, grad_short=grad_short, atoms_needed=block > 0,
            )  # fmt: skip
        if grad_angles is None:
            grad_angles = torch.zeros_like(tape.angle_basis)
        return self._internal_gradients(tape, grad_bonds, grad_short, grad_short_weight, grad_angles)

    def _read_out(self, tape: Tape) -> tuple[Tensor, Tensor]:
        assert self.weights.direct_readout is not None
        at = direct_readout.ends(tape.graph, tape.index)
        found = direct_readout.derivatives(self.features(tape), at, self.weights.direct_readout)
        return direct_readout.forces_and_virial(found, tape.graph, tape.geometry, at)

    @torch.inference_mode()
    def features(self, tape: Tape) -> direct_readout.Features:
        """What the pass has left behind for the direct readout."""
        w, config, geometry = self.weights, self.config, tape.geometry
        exponent = config.envelope_exponent
        slope = bond_basis.slope(geometry.length, w.atom_frequencies, config.atom_cutoff, exponent)
        angles = angle_block.angles_read_last(tape.angle_blocks, tape.angle_basis)
        short_envelope, _ = bond_basis.envelope(geometry.short_length / config.bond_cutoff, exponent)
        return direct_readout.Features(
            atoms=torch.cat([*(saved.atoms for saved in tape.atom_convs), tape.atoms], 1),
            sensitivity=readout.backward(tape.atoms, w.readout, tape.readout),
            short=torch.cat([saved.short for saved in tape.atom_convs], 1),
            angles=angles @ w.angle_embedding if angles is tape.angle_basis else angles,
            basis=torch.cat([bond_basis.values(tape.bonds.basis), slope], 1),
            short_basis=bond_basis.values(tape.short_basis),
            short_envelope=short_envelope[:, None].to(self.dtype),
        )

    def _index(self, graph: GraphBatch) -> GraphIndex:
        """The index of `graph`; while no edge comes or goes, consecutive graphs share their index tensors."""
        last = self._last_index
        if last is not None and all(getattr(last[0], name) is getattr(graph, name) for name in _TOPOLOGY):
            return last[1]
        index = build_index(graph)
        self._last_index = (graph, index)
        return index

    def _internal_gradients(
        self, tape: Tape, grad_bonds: BondGradients, grad_short: Tensor, grad_short_weight: Tensor, grad_angles: Tensor
    ) -> InternalGradients:
        """From gradients of features to those of lengths and angles, through the bases."""
        w, index, basis = self.weights, tape.index, tape.bonds.basis
        bond_basis.backward(grad_bonds.weight, basis, w.atom_weights, grad=grad_bonds.basis)
        near = bond_basis.chosen(basis, index.short_bonds)
        grad_near, grad_short_basis = bond_basis.new_grad(near), bond_basis.new_grad(tape.short_basis)
        bond_basis.backward(grad_short, near, w.bond_embedding, grad=grad_near)
        grad_bonds.basis.index_add_(0, index.short_bonds, grad_near)
        bond_basis.backward(grad_short_weight, tape.short_basis, w.bond_weights, grad=grad_short_basis)
        grad_length = bond_basis.grad_length(grad_bonds.basis, basis)
        grad_length.index_add_(0, index.short_bonds, bond_basis.grad_length(grad_short_basis, tape.short_basis))
        theta = angle_basis.backward(grad_angles, tape.angle_basis, w.angle_frequencies, index.angle_mirror)
        return InternalGradients(grad_length, theta)


class _Keeper:
    """Hands out memory for activations until its budget is spent."""

    def __init__(self, budget: int) -> None:
        self.budget = budget  # bytes, of activations in float32

    def take(self, op: str, block: int, rows: int) -> Scratch | None:
        """Memory for the activations of `rows` messages, or None: compute them again."""
        self.budget -= rows * 9 * 64 * torch.float32.itemsize  # of each message, 9 arrays of 64 columns
        return thread_scratch().under("kept", op, block) if self.budget >= 0 else None
