"""neb: ASE's band with its images in batches, the physics of a hop, and what is refused."""

import json
import logging
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.mixing import SumCalculator
from ase.constraints import FixAtoms
from ase.io import read
from ase.mep import NEB
from ase.optimize import FIRE

from ase_fastchgnet import FastCHGNet, evaluate, neb
from ase_fastchgnet.workflows.elastic_band import CLIMB_FROM


def hop() -> tuple[Atoms, Atoms]:
    """A lithium atom of the body-centred crystal before and after it moves into the vacancy beside it."""
    crystal = bulk("Li", "bcc", a=3.43, cubic=True) * (2, 2, 2)
    corner, centre = 0, 1
    initial, final = crystal.copy(), crystal.copy()
    final.positions[centre] = crystal.positions[corner]
    for atoms in initial, final:
        del atoms[corner]
    return initial, final


def band_of_ase(initial: Atoms, final: Atoms, *, fmax: float, steps: int) -> list[Atoms]:
    """The same band by ASE alone: every image with its own calculator, all forces one by one."""
    images = [initial.copy(), *(initial.copy() for _ in range(3)), final.copy()]
    band = NEB(images, k=0.1, method="improvedtangent")
    band.interpolate(mic=True)
    for image in images:
        image.calc = FastCHGNet(dtype="float64")
    optimizer = FIRE(band, logfile=None)
    optimizer.run(fmax=CLIMB_FROM * fmax, steps=steps)
    band.climb = True
    FIRE(band, logfile=None).run(fmax=fmax, steps=steps - optimizer.nsteps)
    return images


def test_images_in_a_batch_go_where_ases_band_goes_one_by_one() -> None:
    ends = hop()
    options = {"fmax": 0.03, "steps": 8}
    wanted = band_of_ase(*ends, **options)
    found = neb(*ends, FastCHGNet(dtype="float64"), images=3, interpolation="linear", progress=False, **options)
    assert found.n_steps == 8  # some of them with, some without a climbing image: see the next line
    assert found.fmax < CLIMB_FROM * 0.03
    for frame, image in zip(found.frames, wanted, strict=True):
        # rounding, 1e-15 of the coordinates and 1e-13 of the forces, grown over eight steps
        np.testing.assert_allclose(frame.positions, image.positions, rtol=0, atol=1e-9)
        np.testing.assert_allclose(frame.get_forces(), image.get_forces(), rtol=0, atol=1e-8)
        assert frame.get_potential_energy() == pytest.approx(image.get_potential_energy(), abs=1e-9)


def test_any_ase_calculator_gives_the_same_path() -> None:
    options = {"images": 1, "steps": 3, "interpolation": "linear", "progress": False}
    calculator = FastCHGNet(dtype="float64")
    batched = neb(*hop(), calculator, **options)
    one_by_one = neb(*hop(), SumCalculator([calculator]), **options)
    np.testing.assert_allclose(one_by_one.energies, batched.energies, rtol=0, atol=1e-9)
    assert one_by_one.barrier == pytest.approx(batched.barrier, abs=1e-8)


def test_a_symmetric_hop_has_one_barrier_and_its_top_is_a_saddle_point() -> None:
    path = neb(*hop(), images=3, relax_ends=True, fmax=0.03, progress=False)
    assert path.converged
    assert path.fmax < 0.03
    assert path.barrier == pytest.approx(path.reverse_barrier, abs=1e-3)  # float32: 1e-6 of 30 eV, and the optimiser
    assert 0.02 < path.barrier < 0.5
    assert np.argmax(path.energies) == 2
    np.testing.assert_allclose(path.energies, path.energies[::-1], atol=1e-3)
    np.testing.assert_allclose(path.distances, path.distances[-1] - path.distances[::-1], atol=0.02)
    top = path.frames[2]
    assert np.linalg.norm(top.get_forces(), axis=1).max() < 0.03  # in all directions, along the path too
    # half-way by symmetry: the hopping atom is as far from where it was as from where it goes
    before, after = (np.linalg.norm(top.positions[0] - path.frames[n].positions[0]) for n in (0, -1))
    assert before == pytest.approx(after, abs=0.02)
    (exact,) = evaluate([top], dtype="float64")
    assert path.energies[2] == pytest.approx(exact.energy, abs=1e-4)


def test_the_path_does_not_depend_on_which_periodic_image_of_an_atom_is_given() -> None:
    initial, final = hop()
    moved = final.copy()
    moved.positions[::2] += moved.cell[0] - 2 * moved.cell[2]
    plain, wrapped = (neb(initial, end, steps=0, images=2, progress=False) for end in (final, moved))
    np.testing.assert_allclose(wrapped.distances, plain.distances, atol=1e-9)
    assert max(np.linalg.norm(b.positions - a.positions) for a, b in pairwise(wrapped.frames)) < 2


def test_a_molecule_may_be_turned_and_shifted_between_the_ends() -> None:
    initial = molecule("NH3")
    final = initial.copy()
    final.positions[0, 2] *= -1  # the nitrogen atom goes through the plane of the three others
    plain = neb(initial, final, steps=0, images=2, progress=False)
    final.rotate(70, (1, 2, 3))
    final.translate([3, 1, -2])
    turned = neb(initial, final, steps=0, images=2, progress=False)
    np.testing.assert_allclose(turned.distances, plain.distances, atol=1e-6)


def test_fixed_atoms_stay_and_the_structures_given_are_not_changed() -> None:
    initial, final = hop()
    for atoms in initial, final:
        atoms.set_constraint(FixAtoms([5, 9]))
    before = initial.positions.copy(), final.positions.copy()
    path = neb(initial, final, images=2, steps=3, progress=False)
    np.testing.assert_array_equal(initial.positions, before[0])
    np.testing.assert_array_equal(final.positions, before[1])
    assert initial.calc is None
    for frame in path.frames:
        np.testing.assert_array_equal(frame.positions[[5, 9]], before[0][[5, 9]])
    assert np.abs(path.frames[1].positions - before[0]).max(axis=1)[[3, 4]].min() > 0


def test_ends_that_are_no_minima_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    initial, final = hop()
    final.rattle(0.1, seed=1)
    neb(initial, final, images=1, steps=0, fmax=0.3, progress=False)
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(messages) == 1
    assert messages[0].startswith("final is not at a minimum")


def test_relaxed_ends_are_minima(caplog: pytest.LogCaptureFixture) -> None:
    path = neb(*hop(), images=1, steps=0, relax_ends=True, progress=False)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    for end in path.frames[0], path.frames[-1]:
        assert np.linalg.norm(end.get_forces(), axis=1).max() < 0.05


def test_atoms_in_another_order_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    initial, final = hop()
    neb(initial, final[[0, 2, 3, 1, *range(4, 15)]], images=1, steps=0, progress=False)
    assert "renumbered" in caplog.text


def test_steps_that_do_not_suffice_are_no_error() -> None:
    path = neb(*hop(), images=1, steps=1, fmax=1e-3, progress=False)
    assert not path.converged
    assert path.n_steps == 1


def test_a_pymatgen_structure_comes_back_as_one() -> None:
    adaptor = pytest.importorskip("pymatgen.io.ase").AseAtomsAdaptor
    ends = [adaptor.get_structure(atoms) for atoms in hop()]
    path = neb(*ends, images=1, steps=0, progress=False)
    assert [type(image) for image in path.images] == [type(ends[0])] * 3
    assert len(path.images[1].site_properties["magmom"]) == 15


def test_the_curve_of_the_plot_ends_in_the_barrier_and_files_hold_all_images(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = neb(*hop(), images=3, steps=0, progress=False)
    _, axes = path.plot()
    curve, points = axes.lines[1:]
    assert max(curve.get_ydata()) == pytest.approx(path.barrier)
    np.testing.assert_allclose(points.get_ydata(), path.energies - path.energies[0])

    values, table, figure, images = path.write(tmp_path / "hop")
    assert json.loads(values.read_text())["barrier_eV"] == path.barrier
    assert figure.read_bytes().startswith(b"\x89PNG")
    frames = read(images, ":")
    np.testing.assert_allclose([frame.get_potential_energy() for frame in frames], path.energies, atol=1e-6)
    np.testing.assert_allclose(frames[2].get_forces(), path.frames[2].get_forces(), atol=1e-6)
    distances, energies, forces = np.loadtxt(table, delimiter=",", skiprows=1).T
    np.testing.assert_allclose(distances, path.distances)
    np.testing.assert_allclose(energies, path.energies)
    assert forces[2] == pytest.approx(np.linalg.norm(path.frames[2].get_forces(), axis=1).max())
    assert str(path).endswith(f"barrier {path.barrier:.3f} eV, in reverse {path.reverse_barrier:.3f} eV")


def other_number(final: Atoms) -> Atoms:
    return final[1:]


def other_element(final: Atoms) -> Atoms:
    final.symbols[3] = "Na"
    return final


def other_cell(final: Atoms) -> Atoms:
    final.set_cell(final.cell * 1.01, scale_atoms=True)
    return final


def other_boundaries(final: Atoms) -> Atoms:
    final.pbc = (True, True, False)
    return final


def same(final: Atoms) -> Atoms:
    return hop()[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_number, "initial has 15 atoms and final has 14"),
        (other_element, "atom 3 is Li in initial and Na in final"),
        (other_cell, "differ by up to 0.0686 Å"),
        (other_boundaries, "pbc"),
        (same, "initial and final are the same"),
    ],
)
def test_ends_that_do_not_fit_are_refused(change: object, message: str) -> None:
    initial, final = hop()
    with pytest.raises(ValueError, match=message):
        neb(initial, change(final))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images=0"),
        ({"optimizer": "BFGSLineSearch"}, "'BFGS', 'FIRE'"),
        ({"interpolation": "cubic"}, "'idpp' or 'linear'"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neb(*hop(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("interpolation", "message"),
    [("linear", r"^image 1: atoms .* 0\.0000 Å apart"), ("idpp", "^image 1: atoms 0 and 1 meet half-way")],
)
def test_an_image_in_which_atoms_meet_is_named(interpolation: Literal["linear", "idpp"], message: str) -> None:
    initial = Atoms("Li2", [[0, 0, 0], [0, 0, 3.0]], cell=[10, 10, 10], pbc=True)
    final = initial.copy()
    final.positions = final.positions[::-1]  # they swap places
    with pytest.raises(ValueError, match=message):
        neb(initial, final, images=1, interpolation=interpolation, progress=False)
