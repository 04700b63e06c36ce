"""The block whose BondConv and AngleUpdate read the same bonds: one definition, kept by all paths of the model."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ase_fastchgnet import FastCHGNet
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.network import Network
from ase_fastchgnet.model.parameters import Parameters
from ase_fastchgnet.model.reference import ReferenceModel
from tests.model.backends import MIXED, Model, assert_close, random_checkpoint
from tests.structures import STRUCTURES


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(random_checkpoint(parallel_updates=True))


def with_updates(checkpoint: Checkpoint, *, parallel: bool) -> Checkpoint:
    """The same weights in the other block, for which they were not made."""
    config = ModelConfig(**(checkpoint.config.to_dict() | {"parallel_updates": parallel}))
    return Checkpoint(name=checkpoint.name, config=config, parameters=checkpoint.parameters, sha256=checkpoint.sha256)


def test_it_is_another_model(model: Model) -> None:
    graph = model.graph("LiMnO2 rattled")
    in_turn = ReferenceModel(with_updates(model.checkpoint, parallel=False), dtype=torch.float64)
    difference = model.reference.evaluate(graph).atom_energies - in_turn.evaluate(graph).atom_energies
    assert difference.abs().min() > 1e-6  # eV; equal models would be within 1e-10 of each other


def test_where_bonds_are_not_updated_it_is_the_same_model() -> None:
    """BondConv without a say: then old bonds are new bonds, and both blocks compute the same."""
    checkpoint = random_checkpoint(parallel_updates=True)
    state = checkpoint.parameters.to_state_dict(checkpoint.config)
    silent = {k: torch.zeros_like(v) if k.startswith("bond_conv") and "mlp_out" in k else v for k, v in state.items()}
    parameters = Parameters.from_state_dict(silent, checkpoint.config)
    checkpoint = Checkpoint(name="silent", config=checkpoint.config, parameters=parameters, sha256="0" * 64)
    parallel, in_turn = Model(checkpoint), Model(with_updates(checkpoint, parallel=False))
    graph = parallel.graph(*MIXED)
    assert_close(parallel.engine.evaluate(graph), in_turn.engine.evaluate(graph))


@pytest.mark.parametrize("name", ["LiMnO2 rattled", "disordered", "ethanol in a periodic box"])
def test_forces_and_virial_are_slopes_of_the_energy(model: Model, name: str) -> None:
    """Central differences over 2e-5 Å: truncation h² f'''/6 of some 1e-8, rounding 1e-13/h of as much, at 1 eV/Å³."""
    atoms = STRUCTURES[name].copy()
    cutoffs = Cutoffs(model.checkpoint.config.atom_cutoff, model.checkpoint.config.bond_cutoff)

    def energy(moved: Tensor, strain: Tensor) -> float:
        one = atoms.copy()
        one.set_cell(atoms.cell.array @ (torch.eye(3, dtype=torch.float64) + strain).numpy(), scale_atoms=False)
        one.positions = (atoms.positions + moved.numpy()) @ (torch.eye(3, dtype=torch.float64) + strain).numpy()
        return float(model.engine.evaluate(build_batch([one], cutoffs), gradient=False).atom_energies.sum())

    found = model.engine.evaluate(build_batch([atoms], cutoffs))
    assert found.forces is not None
    assert found.virial is not None
    random, h = torch.Generator().manual_seed(3), 1e-5
    still = torch.zeros(len(atoms), 3, dtype=torch.float64)
    for _ in range(3):
        way = torch.randn(len(atoms), 3, generator=random, dtype=torch.float64)
        strain = torch.randn(3, 3, generator=random, dtype=torch.float64)
        slope = (energy(h * way, 0 * strain) - energy(-h * way, 0 * strain)) / (2 * h)
        scale = float(found.forces.abs().max())
        assert slope == pytest.approx(-float((found.forces * way).sum()), abs=1e-6 * max(1.0, scale))
        slope = (energy(still, h * strain) - energy(still, -h * strain)) / (2 * h)
        scale = float(found.virial.abs().max())
        assert slope == pytest.approx(float((found.virial * strain).sum()), abs=1e-6 * max(1.0, scale))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, when it first runs forward mode
def test_the_network_and_its_gradients_are_those_of_the_reference(model: Model) -> None:
    """A loss of energies, forces and stress, differentiated through the reference by autograd twice."""
    graph = model.graph("LiMnO2 rattled", "disordered")
    network = Network(model.checkpoint, dtype=torch.float64)
    found = network(graph, forces="conservative")
    assert found.forces is not None
    expected = model.reference.evaluate(graph)
    torch.testing.assert_close(found.forces, expected.forces, rtol=0, atol=1e-9)
    (found.energies.square().sum() * 1e-3 + found.forces.square().sum()).backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}

    # Along a random direction of all weights, against a difference quotient of the same loss by the engine.
    random = torch.Generator().manual_seed(4)
    state = model.checkpoint.parameters.to_state_dict(model.checkpoint.config)
    way = {name: torch.randn(state[name].shape, generator=random, dtype=torch.float64) for name in gradients}
    slope = sum(float((gradients[name] * way[name]).sum()) for name in gradients if gradients[name] is not None)

    def loss(h: float) -> float:
        moved = {name: tensor + h * way.get(name, 0.0) for name, tensor in state.items()}
        parameters = Parameters.from_state_dict(moved, model.checkpoint.config)
        shifted = Checkpoint(name="", config=model.checkpoint.config, parameters=parameters, sha256="")
        output = Model(shifted).engine.evaluate(graph)
        assert output.forces is not None
        total = torch.zeros(2, dtype=torch.float64).index_add(0, graph.system_of_atom, output.atom_energies)
        return float(total.square().sum() * 1e-3 + output.forces.square().sum())

    quotient = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert slope == pytest.approx(quotient, rel=1e-5)


def test_it_goes_to_a_file_and_comes_back(model: Model, tmp_path: Path) -> None:
    save_checkpoint(model.checkpoint, tmp_path / "parallel.safetensors")
    again = load_checkpoint(tmp_path / "parallel.safetensors")
    assert again.config == model.checkpoint.config
    assert again.config.parallel_updates
    atoms = STRUCTURES["LiMnO2 rattled"].copy()
    atoms.calc = FastCHGNet(tmp_path / "parallel.safetensors", dtype="float64")
    expected = model.engine.evaluate(model.graph(atoms)).atom_energies.sum()
    assert atoms.get_potential_energy() == pytest.approx(float(expected), rel=1e-6)  # weights in float32 in the file


def test_a_file_without_a_word_on_it_is_of_the_released_block(model: Model, tmp_path: Path) -> None:
    checkpoint = with_updates(model.checkpoint, parallel=False)
    save_checkpoint(checkpoint, tmp_path / "old.safetensors")
    path = tmp_path / "old.json"
    description = json.loads(path.read_text())
    assert description["config"].pop("parallel_updates") is False
    path.write_text(json.dumps(description))
    assert load_checkpoint(tmp_path / "old.safetensors").config == checkpoint.config
    assert not any(load_checkpoint(name).config.parallel_updates for name in ("0.3.0", "0.2.0", "r2scan"))
