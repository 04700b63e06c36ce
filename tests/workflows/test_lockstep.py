"""Programs in lockstep: one batch a round, deterministic, and nothing left running."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from structures import STRUCTURES, named

from ase_fastchgnet import FastCHGNet, evaluate
from ase_fastchgnet.evaluation.moving import MovingBatch
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.workflows import lockstep
from ase_fastchgnet.workflows.lockstep import run_in_lockstep

SALT = bulk("NaCl", "rocksalt", a=5.6)


def stretching(atoms: Atoms, times: int) -> Callable[[Calculator], list[float]]:
    """A program that asks for energies of growing cells."""

    def program(calculator: Calculator) -> list[float]:
        moving = atoms.copy()
        moving.calc = calculator
        energies = []
        for _ in range(times):
            moving.set_cell(moving.cell * 1.001, scale_atoms=True)
            energies.append(moving.get_potential_energy())
        return energies

    return program


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The numbers of the structures in each batch, as batches are evaluated."""
    seen: list[list[int]] = []
    evaluate = MovingBatch.evaluate

    def recorded(self: MovingBatch, structures: dict[int, Atoms]) -> object:
        seen.append(list(structures))
        return evaluate(self, structures)

    monkeypatch.setattr(MovingBatch, "evaluate", recorded)
    return seen


def test_calculations_of_one_round_are_one_batch_and_programs_leave_as_they_end(rounds: list[list[int]]) -> None:
    ended = list(run_in_lockstep(enumerate([stretching(SALT, times) for times in (3, 1, 2)]), FastCHGNet()))
    assert rounds == [[0, 1, 2], [0, 2], [0]]
    assert [number for number, _ in ended] == [1, 2, 0]


def test_those_that_wait_enter_when_there_is_room(rounds: list[list[int]]) -> None:
    taken = 0

    def programs() -> Iterator[Callable[[Calculator], list[float]]]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield stretching(SALT, 4)

    outcomes = run_in_lockstep(enumerate(programs()), FastCHGNet())
    next(outcomes)
    assert taken < 100
    assert len(list(outcomes)) == 99
    assert [len(numbers) for numbers in rounds[:4]] == [8, 16, 32, 64]
    assert sorted({number for numbers in rounds for number in numbers}) == list(range(100))


def test_structures_in_flight_are_bounded_by_their_size(
    rounds: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockstep, "ROWS", 2000)
    graph = build_batch([STRUCTURES["LiMnO2"]], Cutoffs())
    most = 2000 // (graph.n_edges + graph.n_angles) + 1
    list(run_in_lockstep(enumerate([stretching(STRUCTURES["LiMnO2"], 4) for _ in range(12)]), FastCHGNet()))
    assert max(map(len, rounds[2:])) <= max(most, 8)


def test_results_are_those_of_evaluate() -> None:
    names = named(lambda atoms: len(atoms) <= 12)[:12]
    structures = [STRUCTURES[name] for name in names]

    def program(atoms: Atoms) -> Callable[[Calculator], dict[str, object]]:
        def everything(calculator: Calculator) -> dict[str, object]:
            calculator.get_property("energy", atoms)
            return calculator.results

        return everything

    calculator = FastCHGNet(dtype="float64", on_isolated_atoms="ignore")
    outcomes = dict(run_in_lockstep(enumerate(map(program, structures)), calculator))
    wanted = evaluate(structures, dtype="float64", on_isolated_atoms="ignore")
    for number, prediction in enumerate(wanted):
        found = outcomes[number]
        assert isinstance(found, dict)
        assert found.keys() == prediction.results().keys()
        for name, value in prediction.results().items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-10)


def test_a_result_at_the_same_geometry_is_not_computed_again(rounds: list[list[int]]) -> None:
    def program(calculator: Calculator) -> None:
        atoms = SALT.copy()
        atoms.calc = calculator
        for _ in range(3):
            atoms.get_potential_energy()
            atoms.get_forces()
            atoms.get_stress()
            atoms.get_magnetic_moments()

    list(run_in_lockstep([(0, program)], FastCHGNet()))
    assert len([numbers for numbers in rounds if numbers]) == 1


def test_an_exception_is_the_outcome_of_its_program_only() -> None:
    def failing(calculator: Calculator) -> list[float]:
        stretching(SALT, 1)(calculator)
        raise KeyError("mine")

    outcomes = dict(run_in_lockstep(enumerate([stretching(SALT, 2), failing, stretching(SALT, 3)]), FastCHGNet()))
    assert isinstance(outcomes[1], KeyError)
    assert [len(outcomes[n]) for n in (0, 2)] == [2, 3]  # type: ignore[arg-type]


def test_a_program_can_go_on_after_a_geometry_that_cannot_be_evaluated() -> None:
    def program(calculator: Calculator) -> float:
        atoms = SALT.copy()
        atoms.calc = calculator
        atoms.positions[1] = atoms.positions[0]
        with pytest.raises(ValueError, match="system 0: atoms 0"):
            atoms.get_potential_energy()
        atoms.positions[1] = SALT.positions[1]
        return atoms.get_potential_energy()

    ((_, energy),) = run_in_lockstep([(0, program)], FastCHGNet())
    assert energy == pytest.approx(evaluate([SALT])[0].energy, abs=1e-5)


def test_two_runs_give_the_same_bits() -> None:
    jobs = [stretching(STRUCTURES[name], 3) for name in ("NaCl", "Si", "MgO", "LiMnO2")]
    first, second = (dict(run_in_lockstep(enumerate(jobs), FastCHGNet())) for _ in range(2))
    assert first == second


def test_closing_early_ends_every_thread_and_runs_its_clean_up() -> None:
    cleaned: list[int] = []

    def program(number: int) -> Callable[[Calculator], None]:
        def long(calculator: Calculator) -> None:
            try:
                stretching(SALT, 100 if number else 1)(calculator)
            finally:
                cleaned.append(number)

        return long

    before = threading.active_count()
    outcomes = run_in_lockstep(enumerate(map(program, [1, 2, 0, 3])), FastCHGNet())
    assert next(outcomes) == (2, None)
    outcomes.close()  # type: ignore[attr-defined]
    assert sorted(cleaned) == [0, 1, 2, 3]
    assert threading.active_count() == before


def test_an_interrupt_inside_a_program_stops_everything() -> None:
    def interrupted(calculator: Calculator) -> None:
        stretching(SALT, 1)(calculator)
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        list(run_in_lockstep(enumerate([interrupted, stretching(SALT, 100)]), FastCHGNet()))
    assert threading.active_count() == before
