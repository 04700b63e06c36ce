"""Diffusion from trajectories: mean squared displacements, coefficients with error bars, and their Arrhenius law."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from scipy.special import stdtrit

from ase_fastchgnet.figures import BLUE, new_figure
from ase_fastchgnet.workflows.displacements import frames_of, times_of, unwrapped_positions
from ase_fastchgnet.workflows.dynamics import MDRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

CM2_PER_S = 0.1  # of 1 Å²/fs
ONE_SIGMA = 0.8413447460685429  # of a normal distribution lies below one standard deviation
BLOCKS = 5
LEAST_FRAMES = 10  # in a block
STRAIGHT = 0.3  # so far from 1 may the exponent be


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diffusion:
    """How fast the atoms of a species spread; errors are half widths of 68 % confidence intervals."""

    species: str
    n_atoms: int
    coefficient: float  # cm²/s, tracer diffusion
    error: float  # cm²/s, from the scatter of the blocks
    by_direction: np.ndarray  # (3,) cm²/s, along x, y and z
    by_direction_error: np.ndarray  # (3,) cm²/s
    exponent: float  # of the power of time with which the msd grows: 1 if atoms diffuse, 0 if they stay, 2 if they fly
    lag: np.ndarray  # (lags,) fs
    msd: np.ndarray  # (lags,) Å², mean over atoms, time origins and blocks
    msd_error: np.ndarray  # (lags,) Å²
    fit: tuple[float, float]  # fs, between which the slope was taken
    n_blocks: int

    def __str__(self) -> str:
        """The coefficient, and what to judge it by."""
        return (
            f"D({self.species}) = {_with_error(self.coefficient, self.error)} cm²/s, mean squared displacement growing "
            f"as t^{self.exponent:.2f} from {self.fit[0] / 1000:g} to {self.fit[1] / 1000:g} ps"
        )

    def write(self, path: str | Path) -> None:
        """Write the mean squared displacement as CSV."""
        table = np.column_stack([self.lag, self.msd, self.msd_error])
        np.savetxt(path, table, fmt="%.8g", delimiter=",", header="lag_fs,msd_A2,msd_error_A2", comments="")

    def plot(self) -> "tuple[Figure, Axes]":
        """Figure and axes with the mean squared displacement, its error, and the line whose slope is 6 D."""
        figure, axes = new_figure(5.5)
        time, (first, last) = self.lag / 1000, self.fit
        axes.fill_between(time, self.msd - self.msd_error, self.msd + self.msd_error, color=BLUE, alpha=0.25, lw=0)
        axes.plot(time, self.msd, color=BLUE, label=f"{self.species}, {self.n_atoms} atoms")
        inside = (self.lag >= first) & (self.lag <= last)
        line = 6 * self.coefficient / CM2_PER_S * (self.lag[inside] - self.lag[inside].mean()) + self.msd[inside].mean()
        axes.plot(
            time[inside], line, "--", color="black", label=f"D = {_with_error(self.coefficient, self.error)} cm²/s"
        )
        axes.set(xlabel="time (ps)", ylabel="mean squared displacement (Å²)", xlim=(0, time[-1]))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return figure, axes


def diffusion(
    trajectory: MDRun[Any] | Sequence[Atoms],
    species: str | Sequence[int],
    *,
    skip: float = 0.0,
    blocks: int = BLOCKS,
    fit: tuple[float, float] | None = None,
    interval: float | None = None,
    wrapped: bool | None = None,
) -> Diffusion:
    """The tracer diffusion coefficient of an element, or of atoms given by their numbers, from Einstein's relation.

    The trajectory is cut into blocks that are taken as independent. In each the mean squared displacement is averaged
    over atoms and time origins, and fitted by a straight line; the coefficients of the blocks give mean and error.

    trajectory  from `md`, or frames at equal intervals
    skip        fs at the start that are left out: the time to come to equilibrium
    blocks      their number, 2 or more: enough for an error, few enough for each to be much longer than a jump takes
    fit         shortest and longest lag of the fit, fs; None: a tenth and half of a block
    interval    fs between frames, if they do not say themselves, as those of `md` do, by "time_fs" in `info`
    wrapped     whether atoms that leave the cell come back on its other side, which `md` never does; None: no, and
                ValueError if an atom seems to do so

    Displacements are relative to the centre of mass of all atoms, unless some are held by constraints. If the cell
    changes, they are those of the fractional coordinates, in the mean cell.
    """
    frames = frames_of(trajectory)
    time = times_of(frames, interval)
    kept = time >= time[0] + skip
    chosen, name = _chosen(frames[0], species)
    positions = unwrapped_positions(frames, wrapped)[kept][:, chosen]
    length = len(positions) // blocks if blocks >= 2 else 0
    if length < LEAST_FRAMES:
        raise ValueError(
            f"{len(positions)} frames in blocks={blocks}: needed are 2 blocks, of {LEAST_FRAMES} frames each, or more; "
            "run longer, keep frames more often (trajectory_interval), or take fewer blocks"
        )
    start = len(positions) - blocks * length
    msd = np.array([_msd(block) for block in np.split(positions[start:], blocks)])  # (blocks, lags, 3)
    lag = (time[1] - time[0]) * np.arange(length)
    window = fit or (0.1 * length * lag[1], 0.5 * length * lag[1])
    inside = (lag >= window[0] * (1 - 1e-9)) & (lag <= window[1] * (1 + 1e-9)) & (lag > 0)
    if inside.sum() < 2:
        raise ValueError(f"fit={window}: fewer than two lags, which go from {lag[1]:g} to {lag[-1]:g} fs, lie in it")
    centred = lag[inside] - lag[inside].mean()
    slopes = np.einsum("l,blc->bc", centred, msd[:, inside]) / (centred**2).sum() / 2 * CM2_PER_S
    coefficient, error = _mean_and_error(slopes.mean(axis=1))
    by_direction, by_direction_error = _mean_and_error(slopes)
    total, total_error = _mean_and_error(msd.sum(axis=2))
    exponent = float(np.polyfit(np.log(lag[inside]), np.log(np.maximum(total[inside], 1e-300)), 1)[0])
    if abs(exponent - 1) > STRAIGHT:
        _log.warning(
            "%s: the mean squared displacement grows as t^%.2f, so this is no diffusion (yet): run longer, use fewer "
            "blocks, or fit later",
            name,
            exponent,
        )
    return Diffusion(
        species=name,
        n_atoms=positions.shape[1],
        coefficient=float(coefficient),
        error=float(error),
        by_direction=by_direction,
        by_direction_error=by_direction_error,
        exponent=exponent,
        lag=lag,
        msd=total,
        msd_error=total_error,
        fit=(float(lag[inside][0]), float(lag[inside][-1])),
        n_blocks=blocks,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrhenius:
    """D = D₀ exp(-Eₐ/kT); errors are standard errors."""

    activation_energy: float  # eV
    activation_energy_error: float  # eV
    prefactor: float  # cm²/s, D₀
    prefactor_factor: float  # D₀ is known to within this factor
    temperatures: np.ndarray  # K
    coefficients: np.ndarray  # cm²/s
    errors: np.ndarray | None  # cm²/s
    covariance: np.ndarray  # (2, 2) of Eₐ and ln D₀

    def __str__(self) -> str:
        """Activation energy and prefactor."""
        energy = _with_error(self.activation_energy, self.activation_energy_error)
        return f"Eₐ = {energy} eV, D₀ = {self.prefactor:.2g} cm²/s within a factor of {self.prefactor_factor:.2g}"

    def coefficient(self, temperature: float) -> tuple[float, float]:
        """The coefficient at any temperature (K) and its standard error, cm²/s."""
        beta = 1 / (units.kB * temperature)
        value = self.prefactor * np.exp(-self.activation_energy * beta)
        gradient = np.array([-beta, 1.0])
        return float(value), float(value * np.sqrt(gradient @ self.covariance @ gradient))

    def plot(self) -> "tuple[Figure, Axes]":
        """Figure and axes with coefficients and fit, against the inverse temperature."""
        figure, axes = new_figure(5.5)
        axes.errorbar(1000 / self.temperatures, self.coefficients, self.errors, fmt="o", color=BLUE, capsize=3)
        ends = np.linspace(1000 / self.temperatures.max(), 1000 / self.temperatures.min(), 50)
        values, errors = np.array([self.coefficient(1000 / x) for x in ends]).T
        axes.fill_between(ends, values * np.exp(-errors / values), values * np.exp(errors / values), color="0.85", lw=0)
        energy = _with_error(self.activation_energy, self.activation_energy_error)
        axes.plot(ends, values, color="black", lw=1, label=f"Eₐ = {energy} eV")
        axes.set(xlabel="1000 K / temperature", ylabel="diffusion coefficient (cm²/s)", yscale="log")
        axes.legend(frameon=False)
        return figure, axes


def arrhenius(
    temperatures: Sequence[float], coefficients: Sequence[float], errors: Sequence[float] | None = None
) -> Arrhenius:
    """The Arrhenius law through diffusion coefficients (cm²/s) at two temperatures (K) or more.

    The logarithm of D is fitted by a straight line in 1/kT, weighted by `errors` (cm²/s, standard errors). Where the
    points scatter more than these explain, errors of the law are raised to match; without `errors`, scatter alone
    gives them, and three points are needed.
    """
    kelvin, values = np.array(temperatures, float), np.array(coefficients, float)
    sigma = None if errors is None else np.array(errors, float)
    _check_points(kelvin, values, sigma)
    relative = np.ones_like(values) if sigma is None else sigma / values
    design = np.column_stack([-1 / (units.kB * kelvin), np.ones_like(kelvin)]) / relative[:, None]
    target = np.log(values) / relative
    parameters, *_ = np.linalg.lstsq(design, target)
    covariance = np.linalg.inv(design.T @ design)
    freedom = len(kelvin) - 2
    scatter = ((target - design @ parameters) ** 2).sum() / freedom if freedom else 1.0
    covariance *= scatter if sigma is None else max(1.0, scatter)
    energy, log_prefactor = parameters
    return Arrhenius(
        activation_energy=float(energy),
        activation_energy_error=float(np.sqrt(covariance[0, 0])),
        prefactor=float(np.exp(log_prefactor)),
        prefactor_factor=float(np.exp(np.sqrt(covariance[1, 1]))),
        temperatures=kelvin,
        coefficients=values,
        errors=sigma,
        covariance=covariance,
    )


def _msd(positions: np.ndarray) -> np.ndarray:
    """Mean squared displacement along x, y, z (lags, 3) of (frames, atoms, 3), over atoms and all time origins.

    |r(t + τ) - r(t)|² is r(t + τ)² + r(t)² - 2 r(t + τ) r(t); the last term is a correlation, summed by Fourier
    transforms: G. R. Kneller et al., Comput. Phys. Commun. 91, 191 (1995).
    """
    n = len(positions)
    r = positions - positions.mean(axis=0)
    spectrum = np.abs(np.fft.rfft(r, 2 * n, axis=0)) ** 2
    correlation = np.fft.irfft(spectrum, axis=0)[:n].sum(axis=1)
    squares = (r**2).sum(axis=1)
    before = np.cumsum(np.vstack([np.zeros((1, 3)), squares]), axis=0)  # (frames + 1, 3)
    lags = np.arange(n)
    sums = before[n - lags] + (before[n] - before[lags]) - 2 * correlation
    msd: np.ndarray = np.maximum(sums, 0) / ((n - lags) * r.shape[1])[:, None]
    return msd


def _mean_and_error(values: np.ndarray) -> tuple[Any, Any]:
    """Mean over the first axis and half width of its 68 % confidence interval, by Student's t."""
    n = len(values)
    return values.mean(axis=0), stdtrit(n - 1, ONE_SIGMA) * values.std(axis=0, ddof=1) / np.sqrt(n)


def _chosen(atoms: Atoms, species: str | Sequence[int]) -> tuple[np.ndarray, str]:
    """The numbers of the atoms meant, and what to call them."""
    if not isinstance(species, str):
        return np.array(species, int), f"{len(species)} chosen atoms"
    found = np.flatnonzero(atoms.symbols == species)
    if not found.size:
        raise ValueError(f"there is no {species!r} among the atoms, which are {atoms.symbols}")
    return found, species


def _check_points(kelvin: np.ndarray, values: np.ndarray, sigma: np.ndarray | None) -> None:
    if not kelvin.shape == values.shape == (values if sigma is None else sigma).shape or kelvin.ndim != 1:
        raise ValueError("temperatures, coefficients and errors must be lists of the same length")
    if len(set(kelvin)) < (2 if sigma is not None else 3):
        raise ValueError(f"{len(set(kelvin))} temperature(s): an Arrhenius law needs two with errors, or three without")
    for number in np.flatnonzero(~(values > 0)):
        raise ValueError(
            f"the coefficient at {kelvin[number]:g} K is {values[number]:.3g}, which has no logarithm: nothing was "
            "seen to diffuse; run longer there, or leave it out"
        )
    if sigma is not None and not (sigma > 0).all():
        raise ValueError("errors must be greater than 0")


def _with_error(value: float, error: float) -> str:
    """As (1.23 ± 0.04) with two digits of the error, or with a power of ten."""
    power = int(np.floor(np.log10(max(abs(value), abs(error), 1e-300))))
    if -3 < power < 3:
        power = 0
    digits = max(0, 1 - int(np.floor(np.log10(max(error, 1e-300) / 10.0**power))))
    digits = min(digits, 6)
    body = f"{value / 10.0**power:.{digits}f} ± {error / 10.0**power:.{digits}f}"
    superscript = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return body if power == 0 else f"({body})·10{superscript}"
