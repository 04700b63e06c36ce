"""CHGNet with trainable weights, differentiable twice."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model import differentiable
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.config import REFERENCE_ENERGIES, ModelConfig
from ase_fastchgnet.model.engine import Engine, direct_readout
from ase_fastchgnet.model.engine.index import build_index
from ase_fastchgnet.model.engine.weights import EngineWeights, pack
from ase_fastchgnet.model.parameters import Parameters
from fastchgnet_kernels import edge_geometry


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
        """Energies and magnetic moments; forces and stress by differentiation, or from the readout ("direct")."""
        parameters = dict(self.named_parameters())
        force = stress = None
        if forces == "conservative":
            context = _Context(graph, self.config, tuple(parameters))
            energies, magmoms, force, virial = _Conservative.apply(context, *parameters.values())  # type: ignore[no-untyped-call]
        else:
            energies, magmoms, force, virial = _direct(parameters, self.config, graph, read_out=forces is not None)
        if virial is not None:
            volume = graph.volume()
            stress = virial / volume.where(volume > 0, torch.inf)[:, None, None]
        own = parameters[REFERENCE_ENERGIES].view(-1).index_select(0, graph.numbers - 1)
        total = energies.new_zeros(graph.n_systems).index_add(0, graph.system_of_atom, energies + own)
        return NetworkOutput(total, magmoms, force, stress)

    def checkpoint(self, name: str) -> Checkpoint:
        """The present weights, to be saved by `save_checkpoint` or used by the calculator."""
        # Copies, also of what is in float64 on the CPU already: training goes on.
        state = {key: tensor.detach().to("cpu", torch.float64, copy=True) for key, tensor in self.state_dict().items()}
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


def _direct(
    parameters: Mapping[str, Tensor], config: ModelConfig, graph: GraphBatch, *, read_out: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Energies of atoms and magnetic moments, and with `read_out` forces and virials: one pass, under autograd."""
    weights = _weights(parameters, config)
    index, geometry = build_index(graph), edge_geometry.forward(graph)
    found = differentiable.forward(weights, config, graph, index, geometry, None)
    energies, magmoms = found.energies.value.double(), found.magmoms.double()
    if not read_out:
        return energies, magmoms, None, None
    if weights.direct_readout is None:
        raise ValueError("the model has no weights for direct forces; see training.initial.with_direct_readout")
    features = differentiable.readout_features(found, weights, config, geometry)
    at = direct_readout.ends(graph, index)
    derivatives = direct_readout.derivatives(features, at, weights.direct_readout)
    return energies, magmoms, *direct_readout.forces_and_virial(derivatives, graph, geometry, at)


class _Context(NamedTuple):
    graph: GraphBatch
    config: ModelConfig
    names: tuple[str, ...]  # of the parameters


class _Conservative(torch.autograd.Function):
    """Energies of atoms, magnetic moments, forces and virials as functions of the weights.

    Forward is the engine's.  For backward, with g_E, g_m, g_F, g_W the gradients of the loss with respect to the four,
        Σ g_F F + Σ g_W W = dE/dt  while atoms move by -g_F and cells are strained by g_W,
    so the gradient with respect to the weights is that of S = Σ g_E E + Σ g_m m + dE/dt: differentiated once forwards,
    along a direction, then once backwards.
    """

    @staticmethod
    def forward(ctx: Any, context: _Context, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.context = context
        ctx.save_for_backward(*parameters)
        state = dict(zip(context.names, parameters, strict=True))
        engine = Engine(_checkpoint(state, context.config), dtype=_dtype(state), device=str(parameters[0].device))
        found = engine.evaluate(context.graph)
        own = state[REFERENCE_ENERGIES].view(-1).index_select(0, context.graph.numbers - 1)
        assert found.forces is not None
        assert found.virial is not None
        return found.atom_energies - own, found.magmoms.clone(), found.forces.clone(), found.virial.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_energy, grad_magmoms, grad_forces, grad_virial = grads
        context = ctx.context
        graph, geometry = context.graph, edge_geometry.forward(context.graph)
        with torch.enable_grad():
            needed = ctx.needs_input_grad[1:]
            leaves = [x.detach().requires_grad_(need) for x, need in zip(ctx.saved_tensors, needed, strict=True)]
            weights = _weights(dict(zip(context.names, leaves, strict=True)), context.config)
            to = differentiable.direction(graph, geometry, -grad_forces, grad_virial)
            found = differentiable.forward(weights, context.config, graph, build_index(graph), geometry, to)
            assert found.energies.tangent is not None
            scalar = (
                torch.dot(grad_energy, found.energies.value.double())
                + torch.dot(grad_magmoms, found.magmoms.double())
                + found.energies.tangent.double().sum()
            )
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            gradients = iter(torch.autograd.grad(scalar, wanted, materialize_grads=True, allow_unused=True))
        return (None, *(next(gradients) if need else None for need in needed))


def _dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    """The one that the network computes in; reference energies have their own."""
    return next(tensor.dtype for name, tensor in state.items() if name != REFERENCE_ENERGIES)


def _checkpoint(state: Mapping[str, Tensor], config: ModelConfig) -> Checkpoint:
    return Checkpoint(name="", config=config, parameters=Parameters.of(state, config), sha256="")


def _weights(state: Mapping[str, Tensor], config: ModelConfig) -> EngineWeights:
    """The weights as the engine has them, differentiable with respect to `state`."""
    return pack(_checkpoint(state, config), _dtype(state), str(state[REFERENCE_ENERGIES].device))
