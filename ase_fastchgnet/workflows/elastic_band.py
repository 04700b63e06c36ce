"""neb: the path of least energy between two minima, and the barrier on it."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.mep import NEB, NEBTools
from ase.optimize import BFGS, FIRE, FIRE2, LBFGS, MDMin
from ase.optimize.optimize import Optimizer
from ase.utils.forcecurve import fit_images

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.figures import BLUE, new_figure
from ase_fastchgnet.parallel.crew import Devices, crew
from ase_fastchgnet.parallel.scheduler import Submits
from ase_fastchgnet.progress import Meter
from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.workflows.calculators import require_own_process, results_of, with_results
from ase_fastchgnet.workflows.interpolation import interpolated, matched, note_forces, unwrapped
from ase_fastchgnet.workflows.minima import ions_at_minimum
from ase_fastchgnet.workflows.structures import StructureT, as_atoms, as_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OPTIMIZERS: dict[str, type[Optimizer]] = {kind.__name__: kind for kind in (BFGS, FIRE, FIRE2, LBFGS, MDMin)}
FILES = ("neb.json", "neb.csv", "neb.png", "images.extxyz")  # of ReactionPath.write
CLIMB_FROM = 5.0  # times fmax: the highest image starts to climb when the band has roughly found its way

Images = Mapping[int, Atoms]  # by their number in the band
Evaluate = Callable[[Images], dict[int, dict[str, Any]]]  # results under ASE's names


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReactionPath(Generic[StructureT]):
    """The images between two minima, both included, and the energies along them."""

    images: list[StructureT]  # of the kind that was given; Atoms carry their results
    frames: list[Atoms]  # the same as Atoms with their results; no atom jumps through the boundary from one to the next
    distances: np.ndarray  # (n_images,) Å, length of the path up to each image
    energies: np.ndarray  # (n_images,) eV
    barrier: float  # eV, from the first image to the highest point of a curve through energies and forces
    reverse_barrier: float  # eV, from the last image
    converged: bool
    fmax: float  # eV/Å, the largest force on the band that remains
    n_steps: int

    @property
    def energy_change(self) -> float:
        """Energy of the last image above the first, eV."""
        return float(self.energies[-1] - self.energies[0])

    def plot(self) -> "tuple[Figure, Axes]":
        """Energy along the path: images, and the curve whose maximum is the barrier."""
        figure, axes = new_figure(4.8, 3.4)
        fit = fit_images(self.frames)
        top = int(np.argmax(fit.fit_energies))
        axes.axhline(0, color="0.85", lw=0.8, zorder=0)
        axes.plot(fit.fit_path, fit.fit_energies, color=BLUE, lw=1.2)
        axes.plot(self.distances, self.energies - self.energies[0], "o", ms=5, mfc="white", color=BLUE)
        peak = (fit.fit_path[top], fit.fit_energies[top])
        axes.annotate(f"{self.barrier:.3f} eV", peak, (0, 6), textcoords="offset points", ha="center")
        axes.margins(y=0.15)
        axes.set(xlabel="path (Å)", ylabel="energy above the first image (eV)")
        return figure, axes

    def write(self, folder: str | Path) -> list[Path]:
        """Write barriers, the path, its figure and all images to a folder; the paths are returned."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values, points, figure, images = paths = [folder / name for name in FILES]
        values.write_text(json.dumps(self._values(), indent=1) + "\n", encoding="utf-8")
        with open(points, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["distance_A", "energy_eV", "max_force_eV_A"], *self._rows()])
        self.plot()[0].savefig(figure, dpi=150)
        ase.io.write(images, self.frames)
        return paths

    def __str__(self) -> str:
        rows = [f"{d:7.3f}{e - self.energies[0]:19.4f}{f:15.3f}" for d, e, f in self._rows()]
        return "\n".join(
            [
                f"{self.frames[0].get_chemical_formula()}, {len(rows) - 2} images between the ends",
                "path, Å  energy change, eV  max |F|, eV/Å",
                *rows,
                f"barrier {self.barrier:.3f} eV, in reverse {self.reverse_barrier:.3f} eV",
            ]
        )

    def _rows(self) -> list[tuple[float, float, float]]:
        forces = [float(np.linalg.norm(frame.get_forces(), axis=1).max()) for frame in self.frames]
        return list(zip(self.distances.tolist(), self.energies.tolist(), forces, strict=True))

    def _values(self) -> dict[str, Any]:
        return {
            "formula": self.frames[0].get_chemical_formula(),
            "barrier_eV": self.barrier,
            "reverse_barrier_eV": self.reverse_barrier,
            "energy_change_eV": self.energy_change,
            "converged": self.converged,
            "fmax_eV_A": self.fmax,
            "n_steps": self.n_steps,
        }


def neb(
    initial: StructureT,
    final: StructureT,
    calculator: Calculator | None = None,
    *,
    images: int = 5,
    interpolation: Literal["idpp", "linear"] = "idpp",
    climb: bool = True,
    fmax: float = 0.05,
    steps: int = 500,
    spring: float = 0.1,
    optimizer: str | type[Optimizer] = "FIRE",
    relax_ends: bool = False,
    devices: Devices = None,
    executor: Submits | None = None,
    progress: bool | None = None,
) -> ReactionPath[StructureT]:
    """The minimum-energy path from `initial` to `final`: ASE's NEB, all images of a step in one batch.

    Both are ase.Atoms or pymatgen Structures with the same atoms in the same order, in the same cell; neither is
    changed.  Atoms take the shortest way through periodic boundaries.

    calculator     any ASE calculator, asked one by one if it is not FastCHGNet; None: FastCHGNet()
    images         how many between the two ends
    interpolation  the path to start from: "idpp" keeps atoms apart, "linear" is a straight line
    climb          the highest image climbs to the saddle point, once the largest force is below 5 fmax
    fmax           eV/Å, largest force on the band at which it has converged
    steps          at most so many
    spring         eV/Å², between neighbouring images; how they spread, hardly where the path is
    optimizer      "FIRE", "FIRE2", "BFGS", "LBFGS" or "MDMin", or such a class: a band has no energy to search along
    relax_ends     relax the atoms of both ends first; if not, and forces larger than fmax remain, that is logged
    devices        processes that share the images, as for `evaluate_many`; it takes large ones to be worth while
    executor       instead of devices, likewise
    progress       draw a bar; None: on a terminal

    The tangent is that of Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000), the climbing image that of Henkelman,
    Uberuaga and Jónsson, same volume, 9901.  Not converging is no error: see `converged`.
    """
    kind = _optimizer_class(optimizer)
    if images < 1:
        raise ValueError(f"images={images}: at least one image between the ends is needed")
    calculator = calculator or FastCHGNet()
    ends = matched(as_atoms(initial), as_atoms(final))
    if relax_ends:
        ends = ions_at_minimum(ends, calculator, fmax=fmax, optimizer=kind, progress=False)
    frames = interpolated(*unwrapped(*ends), images, interpolation)
    with _evaluator(calculator, devices, executor) as evaluate, progress_of("neb", steps, progress) as meter:
        band = _Band(frames, evaluate, k=spring, method="improvedtangent")
        band.evaluate()
        if not relax_ends:
            note_forces(frames[0], frames[-1], fmax)
        n_steps, reached = _optimize(band, kind, fmax, steps, climb=climb, meter=meter)
    return _reaction_path(initial, frames, fmax=fmax, reached=reached, n_steps=n_steps)


class _Band(NEB):
    """ASE's band, all of whose images are evaluated before it asks the first."""

    def __init__(self, images: list[Atoms], evaluate: Evaluate, **options: Any) -> None:
        super().__init__(images, **options)  # type: ignore[no-untyped-call]
        self._evaluate = evaluate

    def evaluate(self) -> None:
        """Attaches results to the images that have moved."""
        moved = {n: image for n, image in enumerate(self.images) if image.calc is None or image.calc.check_state(image)}
        for n, results in self._evaluate(moved).items():
            with_results(self.images[n], results)

    def get_forces(self) -> np.ndarray:
        """Forces on the images between the ends, (images * atoms, 3) eV/Å."""
        self.evaluate()
        forces: np.ndarray = super().get_forces()  # type: ignore[no-untyped-call]
        return forces


def _optimize(
    band: _Band, kind: type[Optimizer], fmax: float, steps: int, *, climb: bool, meter: Meter
) -> tuple[int, float]:
    """How many steps it took, and the largest force that remains."""
    done, reached = 0, np.inf
    for band.climb, goal in [(False, CLIMB_FROM * fmax), (True, fmax)] if climb else [(False, fmax)]:
        optimizer = kind(band, logfile=None)  # type: ignore[arg-type]
        for _ in optimizer.irun(fmax=goal, steps=steps - done):
            target = optimizer.optimizable
            reached = float(target.gradient_norm(target.get_gradient()))
            assert band.energies is not None
            barrier = band.energies.max() - band.energies[0]
            meter.update(done + optimizer.nsteps, f"barrier {barrier:.3f} eV  fmax {reached:.3f} eV/Å")
        done += optimizer.nsteps
    return done, reached


@contextmanager
def _evaluator(calculator: Calculator, devices: Devices, executor: Submits | None) -> Iterator[Evaluate]:
    """A function that evaluates images; processes it needs live as long as this lasts."""
    if not isinstance(calculator, FastCHGNet):
        require_own_process(devices, executor, calculator)
        yield lambda images: _apart(images, calculator, None)
        return
    if devices is None and executor is None:
        yield _together(calculator)
        return
    calculator.chunk_options().for_workers(devices)  # can they work with it?
    with crew(devices, executor) as (workers, _):
        yield lambda images: _apart(images, calculator, workers)


def _together(calculator: FastCHGNet) -> Evaluate:
    batch = calculator.moving_batch()

    def evaluate(images: Images) -> dict[int, dict[str, Any]]:
        found = {}
        for n, prediction in batch.evaluate(images).items():
            if isinstance(prediction, Exception):
                raise ValueError(f"image {n}: {str(prediction).removeprefix(f'system {n}: ')}") from prediction
            found[n] = prediction.results()
        return found

    return evaluate


def _apart(images: Images, calculator: Calculator, workers: Submits | None) -> dict[int, dict[str, Any]]:
    found = results_of(list(images.values()), calculator, ("energy", "forces"), executor=workers)
    return dict(zip(images, found, strict=True))


def _optimizer_class(optimizer: str | type[Optimizer]) -> type[Optimizer]:
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer={optimizer!r} is not one of {', '.join(map(repr, OPTIMIZERS))}")
    return OPTIMIZERS[optimizer]


def _reaction_path(
    given: StructureT, frames: list[Atoms], *, fmax: float, reached: float, n_steps: int
) -> ReactionPath[StructureT]:
    barrier, change = NEBTools(frames).get_barrier()
    return ReactionPath(
        images=[as_given(with_results(frame.copy(), frame.calc.results), given) for frame in frames],
        frames=frames,
        distances=np.array(fit_images(frames).path),
        energies=np.array([frame.get_potential_energy() for frame in frames]),
        barrier=float(barrier),
        reverse_barrier=float(barrier - change),
        converged=reached < fmax,
        fmax=reached,
        n_steps=n_steps,
    )
