"""Forces and stress from the features of one forward pass: the readout of FastCHGNet, after arXiv 2412.20796.

CHGNet's energy is a function of bond lengths r and bond angles θ alone. The readout predicts its derivatives with
respect to them from what the forward pass has left behind,
    s_b ≈ ∂E/∂r_b  for every bond,        t_a ≈ ∂E/∂θ_a  for every angle,
and the chain rule from (r, θ) to positions and strain is exact. So whatever the weights are, forces sum to zero, exert
no torque on a molecule, turn with the structure, do not depend on the origin, on wrapping or on the choice of the cell,
and are continuous where neighbours come and go. The virial of the same derivatives, plus a learnt isotropic and a
learnt traceless part, is the stress.

With h_i features of atom i (all blocks), g_i its learnt sensitivity (from ∂E/∂features of the energy readout), c_b the
concatenated features of a short bond, b(r) the radial basis, u the envelope up to the bond cut-off:
    mix(i, j, b) = silu(LN(A h_i + B h_j + C b(r_b) + u(r_b) D c_b))
    g_i += out(Σ_j mix(i, j, b) ⊙ g_j ⊙ W b(r_b))                                   one hop of sensitivities
    o_b = φ(i, j) ⊙ g_i + φ(j, i) ⊙ g_j,  φ(i, j) = silu(M mix'(i, j, b))
    s_b = w · (o_b ⊙ V [b(r_b), b'(r_b)])
    t_a = w' · (silu(LN(P a + e + e')) ⊙ (q + q') ⊙ U b₃(r) ⊙ U b₃(r'))         a angle features; e, q of its edges
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.engine.index import GraphIndex
from ase_fastchgnet.model.parameters import AngleReadout, DirectReadout, EdgeMix, LayerNorm, Linear
from fastchgnet_kernels import angle_basis, edge_geometry, segment_sum
from fastchgnet_kernels.edge_geometry import Geometry


class Features(NamedTuple):
    """What a forward pass leaves behind for the readout."""

    atoms: Tensor  # (atoms, 64 (n_blocks + 1)) entering each block, and after the last
    sensitivity: Tensor  # (atoms, 64) ∂(energy of the atom)/∂(features after the last block)
    short: Tensor  # (short, 64 n_blocks) features of short bonds entering each block
    angles: Tensor  # (angles, 64) entering the last bond convolution
    basis: Tensor  # (bonds, 2 n_radial) radial basis and its slope
    short_basis: Tensor  # (short, n_radial) the basis up to the bond cut-off
    short_envelope: Tensor  # (short, 1)


class Ends(NamedTuple):
    """Who is at the ends of bonds and angles; int32."""

    center: Tensor  # (bonds,) atom that the representing edge leaves
    neighbor: Tensor  # (bonds,)
    short_bonds: Tensor  # (short,)
    short_center: Tensor  # (2 short,) atom that a short edge leaves
    short_neighbor: Tensor  # (2 short,)
    angle_edges: Tensor  # (angles, 2) receiving and sending short edge
    received_ptr: Tensor  # (2 short + 1,) angles received by each short edge
    angle_mirror: Tensor  # (angles,) the angle with the two edges exchanged
    edge_ptr: Tensor  # (atoms + 1,) edges that leave each atom
    edge_message: Tensor  # (edges,) of [what the centres of bonds receive | what their neighbours receive] its own


class Derivatives(NamedTuple):
    """Predicted derivatives of the energy, and the learnt parts of the virial."""

    length: Tensor  # (bonds,) eV/Å
    theta: Tensor  # (angles,) eV; an angle and its mirror hold the same number, the derivative of both together
    isotropic: Tensor  # (bonds,) eV
    traceless: Tensor  # (bonds,) eV


def ends(graph: GraphBatch, index: GraphIndex) -> Ends:
    """The ends of the bonds and angles of `graph`."""
    edge = graph.edges_of_bond[:, 0]
    number = torch.arange(graph.n_edges, dtype=edge.dtype, device=edge.device)
    represents = edge.index_select(0, graph.bond_of_edge) == number
    short = index.short_center.view(-1, 2)
    return Ends(
        center=graph.center.index_select(0, edge),
        neighbor=graph.neighbor.index_select(0, edge),
        short_bonds=graph.short_bonds,
        short_center=index.short_center,
        short_neighbor=short.flip(1).reshape(-1),
        angle_edges=index.angle_edges,
        received_ptr=index.received_ptr,
        angle_mirror=index.angle_mirror,
        edge_ptr=graph.edge_ptr,
        edge_message=torch.where(represents, graph.bond_of_edge, graph.bond_of_edge + graph.n_bonds),
    )


def derivatives(features: Features, at: Ends, w: DirectReadout) -> Derivatives:
    """∂E/∂r of every bond and ∂E/∂θ of every angle, as the readout sees them."""
    atoms = _apply(silu(_apply(torch.cat([features.atoms, features.sensitivity], 1), w.atom[0])), w.atom[1])
    sensitivity = _apply(torch.cat([features.sensitivity, atoms], 1), w.sensitivity)
    sensitivity = sensitivity + _hop(atoms, sensitivity, features, at, w)
    outward, inward = _mix(atoms, features, at, w.bond)
    bonds = silu(_apply(outward, w.bond_hidden), inplace=True) * sensitivity.index_select(0, at.center)
    bonds = bonds + silu(_apply(inward, w.bond_hidden), inplace=True) * sensitivity.index_select(0, at.neighbor)
    per_bond = linear(bonds * linear(features.basis, w.bond_weight), w.bond_out)
    theta = _theta(atoms, sensitivity, bonds, features, at, w.angle)
    return Derivatives(per_bond[:, 0], theta, per_bond[:, 1], per_bond[:, 2])


def forces_and_virial(found: Derivatives, graph: GraphBatch, geometry: Geometry, at: Ends) -> tuple[Tensor, Tensor]:
    """Forces (atoms, 3) eV/Å and virials (systems, 3, 3) eV by the chain rule, which is exact; float64."""
    theta = found.theta.double()
    grad_unit = angle_basis.backward_theta(theta, geometry.short_unit, at.angle_edges, at.received_ptr)
    forces, virial = edge_geometry.backward(graph, geometry, found.length.double(), grad_unit)
    traceless, isotropic = (_along(x, graph, geometry) for x in (found.traceless, found.isotropic))
    trace = (isotropic - traceless).diagonal(dim1=1, dim2=2).sum(1)  # Σ_b of either, as |u_b| is 1
    third = torch.eye(3, dtype=virial.dtype, device=virial.device) / 3
    return forces, virial + traceless + trace[:, None, None] * third


def _along(x: Tensor, graph: GraphBatch, geometry: Geometry) -> Tensor:
    """Σ_b x_b u_b ⊗ u_b of every system (systems, 3, 3): a virial, whose sums repeat to the last bit."""
    nothing = torch.zeros_like(geometry.short_unit)
    return edge_geometry.backward(graph, geometry, x.double() / geometry.length, nothing)[1]


def _hop(atoms: Tensor, sensitivity: Tensor, features: Features, at: Ends, w: DirectReadout) -> Tensor:
    """What the sensitivity of an atom learns from those of its neighbours, (atoms, 64)."""
    outward, inward = _mix(atoms, features, at, w.hop)
    weight = linear(features.basis[:, : w.hop_weight.shape[1]], w.hop_weight)
    received = [
        outward * sensitivity.index_select(0, at.neighbor) * weight,
        inward * sensitivity.index_select(0, at.center) * weight,
    ]
    return _apply(segment_sum.forward(torch.cat(received), at.edge_message, at.edge_ptr), w.hop_out)


def _mix(atoms: Tensor, features: Features, at: Ends, w: EdgeMix) -> tuple[Tensor, Tensor]:
    """silu(LN(A h_i + B h_j + bond)) for both directions of every bond, (bonds, 64) each."""
    bond = linear(features.basis[:, : w.basis.shape[1]], w.basis)
    bond = bond.index_add(0, at.short_bonds, _apply(features.short, w.short) * features.short_envelope)
    one, other = _apply(atoms, w.one), linear(atoms, w.other)
    outward = one.index_select(0, at.center).add_(other.index_select(0, at.neighbor)).add_(bond)
    inward = one.index_select(0, at.neighbor).add_(other.index_select(0, at.center)).add_(bond)
    return silu(_normalise(outward, w.norm), inplace=True), silu(_normalise(inward, w.norm), inplace=True)


def _theta(atoms: Tensor, sensitivity: Tensor, bonds: Tensor, features: Features, at: Ends, w: AngleReadout) -> Tensor:
    """∂E/∂θ of every angle together with its mirror, (angles,)."""
    edges = linear(features.short, w.short).repeat_interleave(2, 0)
    edges = edges + _apply(atoms, w.center).index_select(0, at.short_center)
    edges = edges + linear(atoms, w.neighbor).index_select(0, at.short_neighbor)
    factor = linear(bonds.index_select(0, at.short_bonds), w.bond_sensitivity).repeat_interleave(2, 0)
    factor = factor + _apply(sensitivity, w.center_sensitivity).index_select(0, at.short_center)
    factor = factor + linear(sensitivity, w.neighbor_sensitivity).index_select(0, at.short_neighbor)
    weight = linear(features.short_basis, w.weight).repeat_interleave(2, 0)
    receiving, sending = at.angle_edges[:, 0], at.angle_edges[:, 1]
    x = linear(features.angles, w.angle).add_(edges.index_select(0, receiving)).add_(edges.index_select(0, sending))
    message = silu(_normalise(x, w.norm), inplace=True)
    message = message * factor.index_select(0, receiving).add_(factor.index_select(0, sending))
    message = message * weight.index_select(0, receiving) * weight.index_select(0, sending)
    theta = linear(message, w.out)[:, 0]
    return theta + theta.index_select(0, at.angle_mirror)


def _apply(x: Tensor, layer: Linear) -> Tensor:
    return linear(x, layer.weight, layer.bias)


def _normalise(x: Tensor, norm: LayerNorm) -> Tensor:
    return layer_norm(x, (x.shape[1],), norm.weight, norm.bias)
