"""The network beside stock chgnet: the same state, and the same gradients of the same loss."""

from itertools import pairwise

import torch
from ase import Atoms
from torch import Tensor

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.network import Network, NetworkOutput
from ase_fastchgnet.training.dataset import Batch, Labels
from ase_fastchgnet.training.objective import LossWeights, loss
from tests.model.backends import Model
from tests.model.double_backward import gradients
from tests.stock import GPA, quiet, stock_model, true_float64
from tests.structures import STRUCTURES


def test_the_state_has_the_names_shapes_and_values_of_stock() -> None:
    stock, ours = stock_model("0.3.0").state_dict(), Network(load_checkpoint("0.3.0")).state_dict()
    assert ours.keys() == stock.keys()
    for name, tensor in stock.items():
        assert torch.equal(ours[name].float(), tensor.float()), name


def test_gradients_of_the_loss_are_those_of_stock_chgnet() -> None:
    """Stock's own loss of its own model, differentiated twice by autograd; all in float64."""
    structures = [STRUCTURES[name] for name in ("LiMnO2 skewed", "Fe bcc, one atom", "NaCl")]
    model = Model(load_checkpoint("0.3.0"))
    graph = model.graph(*structures)
    network = Network(model.checkpoint, dtype=torch.float64)
    found = network(graph, forces="conservative")
    labels = labels_near(found)
    ours = gradients(loss(found, Batch(graph, labels), LossWeights()).total, dict(network.named_parameters()))
    for name, expected in stock_gradients(structures, labels, graph, list(ours)).items():
        error, scale = float((ours[name] - expected).abs().max()), float(expected.abs().max())
        # GPa is 5e-10 larger for ASE than for stock, in the loss of stress; the rest is rounding.
        assert error <= 1e-8 * scale, f"{name}: {error:.1e} at a scale of {scale:.1e}"


def labels_near(found: NetworkOutput) -> Labels:
    """Errors on both sides of where the Huber loss changes; of the second structure not all is known."""
    random = torch.Generator().manual_seed(6)
    spread = NetworkOutput(energies=3.0, magmoms=0.2, forces=0.2, stress=0.2 / GPA)  # type: ignore[arg-type]
    energies, magmoms, forces, stress = (
        x.detach() + scale * torch.randn(x.shape, generator=random) for x, scale in zip(found, spread, strict=True)
    )
    energies[1] = stress[1] = magmoms[8] = torch.nan
    return Labels(energies, forces, stress, magmoms)


def stock_gradients(structures: list[Atoms], labels: Labels, graph: GraphBatch, names: list[str]) -> dict[str, Tensor]:
    from chgnet.trainer.trainer import CombinedLoss
    from pymatgen.io.ase import AseAtomsAdaptor

    net, ptr = stock_model("0.3.0", "float64"), graph.atom_ptr.tolist()
    n_atoms = graph.atom_ptr.diff()
    with true_float64(), quiet():
        graphs = [net.graph_converter(AseAtomsAdaptor.get_structure(atoms)) for atoms in structures]
        prediction = net(graphs, task="efsm")
        per_structure = [slice(start, end) for start, end in pairwise(ptr)]
        targets = {
            "e": labels.energies / n_atoms,
            "f": [labels.forces[atoms] for atoms in per_structure],
            "s": list(labels.stress * GPA),
            "m": [labels.magmoms[atoms] for atoms in per_structure],
        }
        total = CombinedLoss(target_str="efsm", criterion="Huber")(targets, prediction)["loss"]
        weights = {name: x for name, x in net.named_parameters() if name in names}
        assert weights.keys() == set(names)
        return gradients(total, weights)
