"""Stock chgnet as the oracle: as released (float32), or wholly in float64."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor

from ase_fastchgnet import Prediction

if TYPE_CHECKING:
    from chgnet.graph import CrystalGraph
    from chgnet.model import CHGNet

DType = Literal["float32", "float64"]
GPA = 160.21766208  # chgnet's own factor from eV/Å³
VACUUM = 16.0  # Å between the images along an axis that is not periodic; the atom cut-off is 6 Å


def stock_predict(atoms: Atoms, model: str = "0.3.0", dtype: DType = "float64") -> dict[str, Any]:
    """Energy (eV), energies, forces (eV/Å), stress (3, 3) in eV/Å³ and magmoms (μ_B) of stock chgnet, all as float64.

    Axes that are not periodic, which stock would repeat, are first given vacuum. No global state is left changed.
    Stock divides the virial by the signed volume: the stress of a left-handed cell has the wrong sign, put right here.
    """
    atoms = with_vacuum(atoms)
    net = stock_model(model, dtype)
    with true_float64() if dtype == "float64" else contextlib.nullcontext(), quiet():
        from pymatgen.io.ase import AseAtomsAdaptor

        graph = net.graph_converter(AseAtomsAdaptor.get_structure(atoms))
        found = net.predict_graph(graph, task="efsm", return_site_energies=True)
    handedness = np.sign(np.linalg.det(atoms.cell.array))
    return {
        "energy": float(found["e"]) * len(atoms),  # all three released models are intensive
        "energies": np.asarray(found["site_energies"], dtype=np.float64),
        "forces": np.asarray(found["f"], dtype=np.float64),
        "stress": np.asarray(found["s"], dtype=np.float64) * (handedness / GPA),
        "magmoms": np.asarray(found["m"], dtype=np.float64),
    }


@cache
def stock_model(name: str = "0.3.0", dtype: DType = "float32") -> "CHGNet":
    """The released network, loaded without a word; isolated atoms are let through."""
    with quiet():
        from chgnet.model import CHGNet

        net = CHGNet.load(model_name=name, use_device="cpu", verbose=False)
    net.graph_converter.set_isolated_atom_response("ignore")
    if dtype == "float64":
        net = net.double()
        net.composition_model._assemble_graphs = composition  # stock's own ends in .float()
    return net


@contextlib.contextmanager
def true_float64() -> Iterator[None]:
    """Let chgnet make every tensor in float64.

    Its modules read a constant, and `1/torch.sqrt(torch.tensor([2]))` in the angular basis takes the default dtype:
    in float32 that constant alone is wrong by 1e-8, more than the agreement to be shown.
    """
    default = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        for module in ("chgnet.graph.converter", "chgnet.graph.crystalgraph", "chgnet.model.model"):
            stack.enter_context(mock.patch(f"{module}.TORCH_DTYPE", torch.float64))
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float64)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what chgnet prints and the deprecation warnings of its dependencies."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def composition(graphs: Sequence["CrystalGraph"]) -> Tensor:
    """Fraction of each element (graphs, 94), as AtomRef._assemble_graphs computes it but in float64."""
    counts = [torch.bincount(graph.atomic_number - 1, minlength=94) for graph in graphs]
    return torch.stack([count.double() / count.sum() for count in counts])


def with_vacuum(atoms: Atoms) -> Atoms:
    """The same atoms, nothing else attached, in a cell periodic along all three axes.

    A vector that was not periodic becomes a normal of the periodic ones, `VACUUM` longer than the atoms are thick.
    """
    cell, open_axes = atoms.cell.array.copy(), ~atoms.pbc
    if open_axes.any():
        # Rows of vh beyond the rank are orthonormal and perpendicular to the periodic vectors.
        _, _, vh = np.linalg.svd(cell[atoms.pbc], full_matrices=True)
        normals = vh[atoms.pbc.sum() :]
        thickness = np.ptp(atoms.positions @ normals.T, axis=0)
        cell[open_axes] = normals * (thickness + VACUUM)[:, None]
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=cell, pbc=True)


def as_stock(prediction: Prediction) -> dict[str, Any]:
    """A Prediction in the form of `stock_predict`; without "stress" where there is none."""
    found = {name: getattr(prediction, name) for name in ("energy", "energies", "forces", "magmoms")}
    if prediction.stress is not None:
        found["stress"] = voigt_6_to_full_3x3_stress(prediction.stress)
    return found


def worst_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, float]:
    """Largest absolute difference of each quantity that both hold; "energy" is per atom."""
    n_atoms = len(a["energies"])
    worst = {name: float(np.abs(np.subtract(a[name], b[name])).max(initial=0)) for name in a if name in b}
    return worst | {"energy": worst["energy"] / n_atoms}
