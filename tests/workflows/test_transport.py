"""Diffusion and its Arrhenius law, against motion whose statistics are known."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.constraints import FixAtoms

from ase_fastchgnet import arrhenius, diffusion, md
from tests.elastic_crystal import ElasticCrystal, salt

CELL = np.array([[6.0, 0, 0], [1.0, 7.0, 0], [-0.5, 0.8, 8.0]])


def frames_of(positions: np.ndarray, dt: float = 20.0, symbols: str = "Li", **more: Any) -> list[Atoms]:
    """Frames (frames, atoms, 3) `dt` fs apart."""
    names = [symbols] * positions.shape[1]
    frames = [Atoms(names, positions=r, cell=CELL, pbc=True, **more) for r in positions]
    for number, frame in enumerate(frames):
        frame.info["time_fs"] = dt * number
    return frames


def walk(frames: int, atoms: int, seed: int, d: float = 2e-5, dt: float = 20.0) -> np.ndarray:
    """Brownian motion with coefficient `d`, cm²/s, without drift."""
    steps = np.random.default_rng(seed).normal(scale=np.sqrt(2 * d / 0.1 * dt), size=(frames, atoms, 3))
    return np.cumsum(steps, axis=0) + np.random.default_rng(seed + 1).random((atoms, 3)) @ CELL


def with_framework(positions: np.ndarray, dt: float = 20.0) -> list[Atoms]:
    """Walkers in a framework so heavy that their motion does not move the centre of mass."""
    frames = frames_of(positions, dt)
    for frame in frames:
        frame += Atoms("Pb", positions=[[3, 3, 3]])
        frame.set_masses([*[7.0] * positions.shape[1], 1e9])
    return frames


def test_coefficient_and_error_of_brownian_motion_are_right() -> None:
    """Over 150 realisations: unbiased, and as often within one error as a 68 % confidence interval should be."""
    true = 2e-5
    trajectories = [with_framework(walk(100, 8, seed, true)) for seed in range(0, 300, 2)]
    for blocks in (2, 5):
        found = [diffusion(trajectory, "Li", blocks=blocks) for trajectory in trajectories]
        values, errors = np.array([[d.coefficient, d.error] for d in found]).T
        spread = values.std(ddof=1)
        assert values.mean() == pytest.approx(true, abs=4 * spread / np.sqrt(len(values)))
        assert spread < 0.4 * true
        covered = np.mean(np.abs(values - true) < errors)
        assert covered == pytest.approx(0.68, abs=3 * np.sqrt(0.68 * 0.32 / len(values)))


def test_a_long_trajectory_gives_the_coefficient_in_every_direction() -> None:
    found = diffusion(with_framework(walk(3000, 20, seed=5)), "Li")
    assert found.error < 0.3e-5
    assert found.coefficient == pytest.approx(2e-5, abs=3 * found.error)
    assert found.by_direction.mean() == pytest.approx(found.coefficient, rel=1e-12)
    assert (np.abs(found.by_direction - 2e-5) < 4 * found.by_direction_error).all()
    assert found.exponent == pytest.approx(1, abs=0.1)
    assert (found.n_atoms, found.n_blocks, found.species) == (20, 5, "Li")
    assert found.fit == (0.1 * 600 * 20, 0.5 * 600 * 20)
    # 6 D t with D in Å²/fs, at a lag of 1 ps
    assert found.msd[50] == pytest.approx(6 * 2e-4 * 1000, abs=4 * found.msd_error[50])


def test_anisotropic_motion_is_seen_as_such() -> None:
    positions = walk(2000, 20, seed=8)
    positions[:, :, 2] = positions[0, :, 2]
    found = diffusion(with_framework(positions), "Li")
    assert found.by_direction[2] == pytest.approx(0, abs=1e-12)
    assert found.by_direction[0] == pytest.approx(2e-5, abs=4 * found.by_direction_error[0])
    assert found.coefficient == pytest.approx(found.by_direction[:2].sum() / 3)


def test_mean_squared_displacement_is_its_definition() -> None:
    positions = walk(40, 3, seed=2)
    found = diffusion(with_framework(positions), "Li", blocks=2)
    for lag in (1, 7, 19):
        moved = [block[lag:] - block[:-lag] for block in np.split(positions, 2)]
        expected = np.mean([(way**2).sum(axis=2).mean() for way in moved])
        assert found.msd[lag] == pytest.approx(expected, rel=1e-6)  # the framework's mass is large, not infinite
    assert found.msd[0] == pytest.approx(0, abs=1e-9)


def test_ballistic_flight_and_vibration_are_told_from_diffusion(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    time = 20.0 * np.arange(200)
    flight = rng.normal(size=(1, 10, 3)) * 1e-3 * time[:, None, None]
    ballistic = diffusion(with_framework(flight), "Li", blocks=2)
    assert ballistic.exponent == pytest.approx(2, abs=1e-6)
    assert "grows as t^2.00, so this is no diffusion" in caplog.text
    # (v t)² exactly
    assert ballistic.msd[10] == pytest.approx((flight[10] ** 2).sum(axis=1).mean(), rel=1e-6)
    vibration = rng.normal(scale=0.1, size=(200, 10, 3))
    caged = diffusion(with_framework(vibration), "Li")
    assert caged.exponent == pytest.approx(0, abs=0.1)
    assert caged.msd[3] == pytest.approx(6 * 0.1**2, rel=0.1)
    assert abs(caged.coefficient) < 3 * caged.error
    caplog.clear()
    diffusion(with_framework(walk(1000, 10, seed=1)), "Li")
    assert not caplog.text


def test_atoms_that_were_folded_back_are_unfolded() -> None:
    positions = walk(400, 6, seed=3, d=2e-4)
    frames = with_framework(positions)
    whole = diffusion(frames, "Li")
    folded = [frame.copy() for frame in frames]
    for frame in folded:
        frame.wrap()
    with pytest.raises(ValueError, match=r"more than half a cell.*wrapped=True"):
        diffusion(folded, "Li")
    again = diffusion(folded, "Li", wrapped=True)
    np.testing.assert_allclose(again.msd, whole.msd, atol=1e-9)
    as_they_are = diffusion(folded, "Li", wrapped=False)
    assert as_they_are.msd[5] > 2 * whole.msd[5]  # jumps count as motion at short times
    assert as_they_are.exponent < 0.7  # and the cell is a cage at long ones


def test_drift_of_the_whole_does_not_count() -> None:
    positions = walk(400, 6, seed=4)
    still = with_framework(positions)
    drifting = with_framework(positions)
    for number, frame in enumerate(drifting):
        frame.positions += 0.01 * number
    np.testing.assert_allclose(diffusion(drifting, "Li").msd, diffusion(still, "Li").msd, atol=1e-9)


def test_held_atoms_are_what_motion_is_relative_to() -> None:
    """A single mobile atom next to one that is held: the centre of mass moves, and is none of our business."""
    positions = walk(200, 2, seed=6)
    positions[:, 1] = positions[0, 1]
    held = frames_of(positions)
    for frame in held:
        frame.set_constraint(FixAtoms([1]))
    found = diffusion(held, [0], blocks=2)
    way = positions[:100, 0]
    expected = np.mean([((p[5:] - p[:-5]) ** 2).sum(axis=1).mean() for p in (way, positions[100:, 0])])
    assert found.msd[5] == pytest.approx(expected)
    assert found.species == "1 chosen atoms"


def test_breathing_of_the_cell_is_no_diffusion() -> None:
    """Atoms at fixed fractional coordinates in a cell that swells and shrinks; some far from the origin."""
    fractional = np.random.default_rng(1).random((5, 3)) * 4
    frames = []
    for number in range(100):
        cell = CELL * (1 + 0.02 * np.sin(number / 3))
        frames.append(Atoms("Li5", positions=fractional @ cell, cell=cell, pbc=True, info={"time_fs": 10 * number}))
    assert diffusion(frames, "Li").msd.max() < 1e-20


def test_the_start_can_be_left_out() -> None:
    positions = walk(300, 4, seed=9)
    positions[:100] *= 3
    frames = with_framework(positions)
    late = diffusion(frames, "Li", skip=2000, wrapped=False)
    np.testing.assert_allclose(late.msd, diffusion(frames[100:], "Li").msd, atol=1e-15)


def test_a_run_of_md_can_be_analysed_from_memory_and_from_file(tmp_path: Path) -> None:
    """In a crystal on springs the displacement is that of independent oscillators: 2 · 3 kT/k at long lags."""
    atoms = salt(2)
    calculator = ElasticCrystal(atoms)
    options: dict[str, Any] = {"steps": 2000, "temperature": 600, "timestep": 4, "thermostat_time": 30}
    options |= {"ensemble": "nvt-langevin", "trajectory_interval": 5, "log_interval": 1000}
    run = md(atoms, calculator, **options, out=tmp_path)
    found = diffusion(run, "Na", skip=1000)
    # The spring is soft and far away from where it was: the centre of mass takes a 64th part
    assert found.msd[-20:].mean() == pytest.approx(6 * units.kB * 600 / calculator.k, rel=0.1)
    assert abs(found.exponent) < 0.1
    in_memory = diffusion(run.frames(), "Na", skip=1000)
    np.testing.assert_array_equal(found.msd, in_memory.msd)


def test_result_can_be_written_and_plotted(tmp_path: Path) -> None:
    found = diffusion(with_framework(walk(100, 4, seed=1)), "Li")
    found.write(tmp_path / "msd.csv")
    table = np.loadtxt(tmp_path / "msd.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table, np.column_stack([found.lag, found.msd, found.msd_error]), rtol=1e-7)
    pytest.importorskip("matplotlib")
    figure, axes = found.plot()
    figure.canvas.draw()
    line = axes.get_lines()[1]
    slope = np.ptp(line.get_ydata()) / np.ptp(line.get_xdata())  # Å²/ps
    assert slope / 6 * 1e-4 == pytest.approx(found.coefficient)


@functools.cache
def some_frames() -> list[Atoms]:
    return with_framework(walk(30, 2, seed=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diffusion(some_frames(), "K"), "no 'K' among the atoms, which are Li2Pb"),
        (lambda: diffusion(some_frames(), "Li"), "30 frames in blocks=5.*run longer"),
        (lambda: diffusion(some_frames(), "Li", blocks=1), "blocks=1"),
        (lambda: diffusion(some_frames()[:1], "Li"), "two at least"),
        (lambda: diffusion(some_frames(), "Li", blocks=2, fit=(1e6, 2e6)), "fewer than two lags"),
        (lambda: diffusion(some_frames()[::2] + some_frames()[-1:], "Li"), "equal intervals"),
        (lambda: diffusion([Atoms("Li", cell=CELL)] * 30, "Li"), "pass interval"),
        (lambda: diffusion([*some_frames(), Atoms("Li3", info={"time_fs": 600})], "Li"), "frame 30 has other atoms"),
    ],
)
def test_what_cannot_be_analysed_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def law(energy: float, prefactor: float, kelvin: Sequence[float]) -> np.ndarray:
    return prefactor * np.exp(-energy / (units.kB * np.array(kelvin)))


KELVIN = [600, 750, 900, 1050, 1200]


def test_an_exact_arrhenius_law_is_found_exactly() -> None:
    values = law(0.35, 2e-3, KELVIN)
    for errors in None, 0.1 * values:
        found = arrhenius(KELVIN, values, errors)
        assert found.activation_energy == pytest.approx(0.35, rel=1e-9)
        assert found.prefactor == pytest.approx(2e-3, rel=1e-9)
        value, _ = found.coefficient(300)
        assert value == pytest.approx(law(0.35, 2e-3, [300])[0], rel=1e-8)
    assert found.activation_energy_error > 0
    two = arrhenius(KELVIN[:2], values[:2], 0.1 * values[:2])
    beta = 1 / (units.kB * np.array(KELVIN[:2]))
    assert two.activation_energy_error == pytest.approx(np.sqrt(2) * 0.1 / abs(beta[0] - beta[1]))


@pytest.mark.parametrize("known", [True, False])
def test_errors_of_the_law_cover_the_truth_as_often_as_they_should(known: bool) -> None:
    """400 noisy sets of five points; errors are standard errors, of the extrapolation to 300 K too."""
    rng = np.random.default_rng(3)
    values = law(0.35, 2e-3, KELVIN)
    relative = np.array([0.2, 0.1, 0.06, 0.05, 0.05]) if known else np.full(5, 0.1)
    pulls, extrapolated = [], []
    for _ in range(400):
        noisy = values * np.exp(relative * rng.normal(size=5))
        found = arrhenius(KELVIN, noisy, relative * noisy if known else None)
        pulls.append((found.activation_energy - 0.35) / found.activation_energy_error)
        value, error = found.coefficient(300)
        extrapolated.append(np.log(value / law(0.35, 2e-3, [300])[0]) / (error / value))
    for pull in np.array(pulls), np.array(extrapolated):
        assert abs(pull.mean()) < 0.25
        # With three degrees of freedom, 61 % where the errors come from scatter; a little over 68 % where they can
        # only be raised by it
        assert np.mean(np.abs(pull) < 1) == pytest.approx(0.72 if known else 0.61, abs=0.07)


def test_points_that_scatter_more_than_their_errors_raise_those_of_the_law() -> None:
    values = law(0.35, 2e-3, KELVIN) * [1.5, 0.7, 1.4, 0.7, 1.3]
    confident = arrhenius(KELVIN, values, 0.01 * values)
    honest = arrhenius(KELVIN, values)
    assert confident.activation_energy_error == pytest.approx(honest.activation_energy_error, rel=0.01)


def test_the_law_can_be_plotted() -> None:
    pytest.importorskip("matplotlib")
    values = law(0.35, 2e-3, KELVIN)
    figure, axes = arrhenius(KELVIN, values, 0.1 * values).plot()
    figure.canvas.draw()
    assert axes.get_yscale() == "log"
    assert axes.get_legend().get_texts()[0].get_text().startswith("Eₐ = 0.350 ± 0.0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([300, 400], [1e-6, 2e-6]), "two with errors, or three without"),
        (([300, 300], [1e-6, 2e-6], [1e-7, 1e-7]), r"1 temperature\(s\)"),
        (([300, 400, 500], [1e-6, -2e-7, 3e-6]), "at 400 K is -2e-07, which has no logarithm"),
        (([300, 400, 500], [1e-6, 2e-6]), "same length"),
        (([300, 400, 500], [1e-6, 2e-6, 3e-6], [0, 1e-7, 1e-7]), "greater than 0"),
    ],
)
def test_points_that_make_no_law_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arrhenius(*arguments)
