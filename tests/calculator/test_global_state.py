"""torch's and numpy's global state is neither changed nor obeyed, and memory does not grow."""

import gc
import sys
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_fastchgnet import FastCHGNet, evaluate
from ase_fastchgnet.model.engine import Tape

BACKENDS = ["torch", "reference"]


def global_state() -> list[object]:
    kind, keys, *rest = np.random.get_state()
    return [
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.get_rng_state().tolist(),
        (kind, keys.tolist(), *rest),
    ]


@pytest.fixture
def double_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_calculation_changes_no_global_state(salt: Atoms, backend: str) -> None:
    before = global_state()
    salt.calc = FastCHGNet(backend=backend)
    salt.get_stress()
    evaluate([salt, salt], backend=backend)
    assert global_state() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_dtype_of_torch_does_not_matter(salt: Atoms, backend: str, request: pytest.FixtureRequest) -> None:
    single, double = (FastCHGNet(backend=backend, dtype=dtype).get_forces(salt) for dtype in ("float32", "float64"))
    assert (single != double).any()
    request.getfixturevalue("double_by_default")
    before = global_state()
    np.testing.assert_array_equal(FastCHGNet(backend=backend).get_forces(salt), single)
    np.testing.assert_array_equal(FastCHGNet(backend=backend, dtype="float64").get_forces(salt), double)
    assert global_state() == before


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_in_any_gradient_mode_and_after_it(
    salt: Atoms, backend: str, mode: type[AbstractContextManager[None]]
) -> None:
    expected = FastCHGNet(backend=backend).get_stress(salt)
    salt.calc = FastCHGNet("r2scan", backend=backend)
    with mode():
        salt.get_potential_energy()  # loads the weights and leaves a pass pending
        np.testing.assert_array_equal(FastCHGNet(backend=backend).get_stress(salt), expected)
        assert evaluate([salt], backend=backend)[0].forces is not None
    assert np.abs(salt.get_forces()).max() > 0.1
    salt.positions[0, 0] += 1e-3  # neighbours found inside, forces outside
    assert np.abs(salt.get_forces()).max() > 0.1


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("calls", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_memory_does_not_grow(calls: int) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    calc = FastCHGNet()
    random = np.random.default_rng(8)

    def work(count: int) -> None:
        for _ in range(count):
            atoms.positions += random.normal(scale=0.01, size=(2, 3))
            calc.get_potential_energy(atoms)
            calc.get_forces(atoms)

    work(50)
    gc.collect()
    before = resident_mb()
    work(calls)
    # Measured: 0.1 MB for 150 calls, 0.2 MB for 1000; if each call leaked no more than its graph, 3.7 and 17 MB.
    assert resident_mb() - before < 1.5 + calls / 250


def pending_passes() -> int:
    gc.collect()
    return sum(type(thing) is Tape for thing in gc.get_objects())


def test_activations_are_kept_after_an_energy_only_and_until_the_next_geometry(salt: Atoms) -> None:
    before = pending_passes()
    salt.calc = FastCHGNet()
    salt.get_potential_energy()
    assert pending_passes() == before + 1
    salt.rattle(0.01, seed=3)
    salt.get_potential_energy()
    assert pending_passes() == before + 1
    salt.get_forces()
    assert pending_passes() == before
    evaluate([salt])
    assert pending_passes() == before


def test_a_discarded_calculator_is_freed_without_the_garbage_collector(salt: Atoms) -> None:
    calc = FastCHGNet()
    calc.get_potential_energy(salt)  # leaves activations behind
    watch = weakref.ref(calc)
    gc.disable()
    try:
        del calc
        assert watch() is None
    finally:
        gc.enable()
