"""estimate_memory() against what is really allocated, and errors that say what would fit.

Kernels take no part in how much is allocated, so that here they are left out, and CPU tensors stand for a device's;
`tests/kernels/interpreted/whole_model.py` measures with kernels.
"""

import threading
from collections.abc import Callable

import pytest
from ase import Atoms
from structures import STRUCTURES

from ase_fastchgnet import FastCHGNet, estimate_memory, evaluate
from ase_fastchgnet.evaluation import memory
from ase_fastchgnet.evaluation.backend import DTYPES
from ase_fastchgnet.evaluation.evaluator import StructureTooLargeError
from ase_fastchgnet.evaluation.source import load_weights
from ase_fastchgnet.graph import Cutoffs, DeviceNeighborCache, NeighborCache
from ase_fastchgnet.graph.size import count_rows
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.engine import engine as engine_module
from fastchgnet_kernels import _launch
from fastchgnet_kernels.gated_message import scratch
from tests.live_memory import LiveMemory
from tests.model.test_engine_state import tensors_of

# Edges and angles per atom: 85 and 95, 46 and 12, 90 and 192, 28 and none, 0 and 0, and whatever is there at random.
CRYSTALS = {
    "LiMnO2": (2, 2, 2),
    "Si": (4, 4, 4),
    "MgO": (2, 2, 1),
    "K bcc, no bond below 3 Å": (4, 4, 4),
    "Cu gas, atoms 7 Å apart": (3, 3, 3),
    "disordered": (2, 1, 1),
    "LiMnO2 compressed": (1, 1, 1),
    "slab on its side": (1, 1, 1),
}


def crystal(name: str) -> Atoms:
    return STRUCTURES[name].repeat(CRYSTALS[name])


@pytest.fixture
def kernels_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    jit = pytest.importorskip("triton.runtime.jit", reason="Triton is for Linux only")
    monkeypatch.setattr(_launch, "INTERPRETED", True)
    monkeypatch.setattr(jit.JITFunction, "run", lambda *arguments, **options: None)


def peak(
    atoms: Atoms, make_cache: Callable[..., DeviceNeighborCache | NeighborCache], dtype: str, forces: str, skin: float
) -> int:
    """Of the second of two evaluations, which finds what the first one has left."""
    checkpoint = load_weights("0.3.0", forces)
    engine = Engine(checkpoint, dtype=DTYPES[dtype], forces=forces)
    cache = make_cache(Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff), skin)
    with LiveMemory(tensors_of(engine.weights)) as live:
        graph = cache.graph(atoms)
        for _ in range(2):
            engine.evaluate(graph)
    return live.peak


def assert_close_above(estimate: int, measured: int) -> None:
    assert 0.95 * measured < estimate < 1.2 * measured, f"estimated {estimate / measured:.3f} of {measured} bytes"


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "as in large systems"])
def test_by_kernels_it_is_what_is_allocated(
    name: str, keep: bool, kernels_left_out: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search on the device is a part of it.  Large systems keep next to nothing, as what may be kept is bounded."""
    if not keep:
        monkeypatch.setattr(engine_module, "KEEP_BYTES", 0)
        monkeypatch.setattr("ase_fastchgnet.model.engine.memory.KEEP_BYTES", 0)
    atoms = crystal(name)
    measured = peak(atoms, DeviceNeighborCache, "float32", "conservative", 1.0)
    assert_close_above(estimate_memory(atoms, device="cuda", skin=1.0), measured)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_so_it_is_with_other_options(dtype: str, forces: str, kernels_left_out: None) -> None:
    for name in ("LiMnO2", "Si"):
        measured = peak(crystal(name), DeviceNeighborCache, dtype, forces, 0.0)
        assert_close_above(estimate_memory(crystal(name), device="cuda", dtype=dtype, forces=forces), measured)


@pytest.mark.parametrize(
    ("name", "dtype", "forces"),
    [(name, "float32", "conservative") for name in CRYSTALS]
    + [("LiMnO2", "float64", "conservative"), ("Si", "float32", "direct"), ("LiMnO2", "float32", "direct")],
)
def test_on_a_cpu_it_is_what_is_allocated(name: str, dtype: str, forces: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_local", threading.local())  # as in a new process
    measured = peak(crystal(name), NeighborCache, dtype, forces, 0.0)
    assert_close_above(estimate_memory(crystal(name), device="cpu", dtype=dtype, forces=forces), measured)


def test_it_grows_as_the_structure_does() -> None:
    one, eight = (estimate_memory(STRUCTURES["LiMnO2"].repeat(k), device="cuda") for k in (8, 16))
    assert eight == pytest.approx(8 * one, rel=0.1)  # but for weights, and what is kept up to some bound


@pytest.mark.parametrize(("name", "bar"), [("LiMnO2", 0.25e6), ("Si", 0.14e6)])
def test_large_systems_stay_below_what_is_promised(name: str, bar: float) -> None:
    """Bytes per atom in float32 on CUDA devices; of Si, 1e6 atoms are to fit into the 141 GB of an H200."""
    atoms = STRUCTURES[name].repeat(16 if name == "LiMnO2" else 20)
    assert estimate_memory(atoms, device="cuda", skin=1.0) < bar * len(atoms)


def test_counted_rows_are_those_of_the_graph() -> None:
    for name, atoms in STRUCTURES.items():
        rows, graph = count_rows(atoms, Cutoffs()), NeighborCache(Cutoffs()).graph(atoms)
        sizes = graph.n_atoms, graph.n_bonds, len(graph.short_bonds), graph.n_angles
        assert (rows.atoms, rows.bonds, rows.short, rows.angles) == sizes, name
        assert count_rows(atoms, Cutoffs(), 1.0).candidates >= rows.candidates >= rows.bonds


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="is not one of"):
        estimate_memory(STRUCTURES["Si"], dtype="half")
    with pytest.raises(ValueError, match="is not a device"):
        estimate_memory(STRUCTURES["Si"], device="tpu")


@pytest.fixture
def device_of_8_mb(monkeypatch: pytest.MonkeyPatch) -> LiveMemory:
    """Without a GPU nothing runs out of memory in a test, so a limit on what torch has made stands for a full device.

    It raises what an allocation on a full CUDA device raises, wherever the limit is passed.
    """
    monkeypatch.setattr(memory, "_available", lambda device: 8_000_000)
    monkeypatch.setattr(engine_module, "KEEP_BYTES", 0)
    monkeypatch.setattr(scratch, "_local", threading.local())
    evaluate([STRUCTURES["NaCl"]], device="cpu")  # what is made once is there
    return LiveMemory(limit=8_000_000)


EXPLAINED = r"64 atoms need about \d+ MB, and 8 MB of cpu are enough for some \d+ atoms of this structure"


def test_evaluate_says_what_would_fit(device_of_8_mb: LiveMemory) -> None:
    small, large = STRUCTURES["NaCl"], STRUCTURES["LiMnO2"].repeat(2)
    with device_of_8_mb:
        assert len(evaluate([small], device="cpu")) == 1
        with pytest.raises(StructureTooLargeError, match=rf"system 1: 64 atoms, .* the memory of cpu \({EXPLAINED}"):
            evaluate([small, large], device="cpu")


def test_so_does_a_moving_batch_of_the_one_that_does_not_fit(device_of_8_mb: LiveMemory) -> None:
    small, large = STRUCTURES["NaCl"], STRUCTURES["LiMnO2"].repeat(2)
    with device_of_8_mb:
        found = FastCHGNet(device="cpu").moving_batch().evaluate({4: large, 5: small})
    assert isinstance(found[4], StructureTooLargeError)
    assert f"{found[5].energy:.1f}" == f"{evaluate([small], device='cpu')[0].energy:.1f}"


def test_so_does_the_calculator_which_goes_on_with_smaller_ones(device_of_8_mb: LiveMemory) -> None:
    small, large = STRUCTURES["NaCl"].copy(), STRUCTURES["LiMnO2"].repeat(2)
    large.calc = small.calc = calc = FastCHGNet(device="cpu")
    with device_of_8_mb:
        for compute in (large.get_forces, large.get_potential_energy):
            with pytest.raises(
                StructureTooLargeError, match=rf"64 atoms do not fit into the memory of cpu \({EXPLAINED}"
            ):
                compute()
            assert calc.results == {}
        assert small.get_potential_energy() == pytest.approx(evaluate([small], device="cpu")[0].energy)


def test_where_memory_would_do_something_else_is_in_it(
    device_of_8_mb: LiveMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_available", lambda device: 80_000_000_000)
    with device_of_8_mb, pytest.raises(StructureTooLargeError, match="80 GB of cpu would be enough, were other things"):
        evaluate([STRUCTURES["LiMnO2"].repeat(2)], device="cpu")


def test_as_many_atoms_as_an_error_says_do_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the estimate, at least; and a quarter more do not."""
    there = 2_000_000_000
    monkeypatch.setattr(memory, "_available", lambda device: there)
    backend, cell = FastCHGNet(device="cpu")._load_backend(), STRUCTURES["LiMnO2"].repeat((5, 5, 1))
    text = memory.what_fits(cell.repeat((1, 1, 100)), backend)
    fitting = int(text.split("some ")[1].split()[0].replace(",", "")) / len(cell)
    assert estimate_memory(cell.repeat((1, 1, int(fitting))), device="cpu") < there
    assert estimate_memory(cell.repeat((1, 1, int(1.25 * fitting))), device="cpu") > there
