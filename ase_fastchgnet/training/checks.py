"""Is it what training takes it for?  Looks at labelled structures, says what it finds, and changes nothing."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.training.comparison import compare_with_model
from ase_fastchgnet.training.findings import SEVERITIES, Finding, structures
from ase_fastchgnet.training.labels import Labelled
from ase_fastchgnet.training.reference_energies import GAUSSIAN, composition, element_shifts

Floats = NDArray[np.float64]

LABELS = ("energy", "forces", "stress", "magmoms")
PLURAL = {"energy": "energies", "forces": "forces", "stress": "stresses", "magmoms": "magnetic moments"}
SAME = 1e-4  # Å; structures whose atoms and cells differ by less are one
LARGEST = {"forces": (30.0, "eV/Å"), "stress": (2.0, "eV/Å³"), "magmoms": (10.0, "μB")}
NET_FORCE = 0.02  # eV/Å per atom; converged DFT stays below a few meV/Å
AT_REST = 1e-3  # eV/Å
ENERGY_SPREADS = 8.0  # standard deviations, as the median absolute deviation has it
LEAST_ENERGY_OUTLIER = 0.5  # eV/atom


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found in labelled structures; `str` makes it readable."""

    structures: int
    atoms: int
    elements: tuple[str, ...]  # by how many structures have them
    known: dict[str, int]  # structures of which each kind of label is known
    findings: tuple[Finding, ...]  # errors first

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What should be put right before training."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def __str__(self) -> str:
        known = ", ".join(f"{name} {count:,}" for name, count in self.known.items())
        few = len(self.elements) <= 12
        elements = " ".join(self.elements) if few else f"{len(self.elements)} elements"
        first = f"{structures(self.structures)}, {self.atoms:,} atoms, {elements}; known: {known}"
        return "\n".join([first, *(f"  {finding}" for finding in self.findings)])


def check_labels(
    labelled: Sequence[Labelled], checkpoint: Checkpoint | None = None, *, device: torch.device | str = "cpu"
) -> Report:
    """Looks for wrong units and signs, outliers, duplicates and labels that teach nothing.

    Units and signs show in comparison with what the model of `checkpoint` says of a few dozen of the structures.
    """
    if not labelled:
        raise ValueError("there are no labelled structures to check")
    findings = [finding for check in CHECKS for finding in check(labelled)]
    if checkpoint is not None:
        findings += compare_with_model(labelled, checkpoint, device)
    elements: Counter[str] = Counter()
    for one in labelled:
        elements.update(set(one.atoms.symbols))
    return Report(
        structures=len(labelled),
        atoms=sum(len(one.atoms) for one in labelled),
        elements=tuple(symbol for symbol, _ in elements.most_common()),
        known={name: sum(getattr(one, name) is not None for one in labelled) for name in LABELS},
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
    )


def find_duplicates(labelled: Sequence[Labelled]) -> Iterator[Finding]:
    """Structures that are there more than once, which count more, and leak from training to validation."""
    groups: dict[bytes, list[Labelled]] = defaultdict(list)
    for one in labelled:
        groups[_fingerprint(one)].append(one)
    repeated = [group for group in groups.values() if len(group) > 1]
    if not repeated:
        return
    contradicting = [one.source for group in repeated if _disagree(group) for one in group]
    if contradicting:
        text = f"{structures(len(contradicting))} are the same as others, with labels that are not"
        yield Finding("warning", text, tuple(contradicting))
    spare = tuple(one.source for group in repeated if not _disagree(group) for one in group[1:])
    if spare:
        yield Finding(
            "warning", f"{structures(len(spare))} too many: the same are there already, with the same labels", spare
        )


def find_outlying_energies(labelled: Sequence[Labelled]) -> Iterator[Finding]:
    """Energies far from a sum of energies of the elements that is fitted to them all."""
    known = [one for one in labelled if one.energy is not None]
    if not known:
        return
    shares = np.array([composition(one) for one in known])
    energies = np.array([float(one.energy or 0) / len(one.atoms) for one in known])
    n_elements = int(shares.any(axis=0).sum())
    if len(known) < 2 * n_elements + 4:  # the fit could follow anything
        return
    shifts, _ = element_shifts(shares, energies)
    left = energies - shares @ shifts
    left -= np.median(left)
    limit = max(ENERGY_SPREADS * GAUSSIAN * float(np.median(np.abs(left))), LEAST_ENERGY_OUTLIER)
    far = _worst(known, np.abs(left), limit)
    if far:
        text = (
            f"energies of {structures(len(far))} are more than {limit:.2g} eV/atom, and up to "
            f"{np.abs(left).max():.3g}, away from a sum of energies of their elements"
        )
        yield Finding("warning", text, far)


def find_net_forces(labelled: Sequence[Labelled]) -> Iterator[Finding]:
    """Forces that do not add up to zero."""
    known = [one for one in labelled if one.forces is not None and np.isfinite(one.forces).all()]
    net = np.array([np.linalg.norm(one.forces.sum(axis=0)) / len(one.atoms) for one in known if one.forces is not None])
    far = _worst(known, net, NET_FORCE)
    if far:
        text = (
            f"forces of {structures(len(far))} add up to more than {NET_FORCE} eV/Å per atom, {net.max():.2g} at "
            "most: were constraints applied to them, or an external field?"
        )
        yield Finding("warning", text, far)


def find_large_labels(labelled: Sequence[Labelled]) -> Iterator[Finding]:
    """Labels larger than what is met in crystals."""
    for name, (limit, unit) in LARGEST.items():
        known = [one for one in labelled if getattr(one, name) is not None]
        largest = np.array([np.nanmax(np.abs(getattr(one, name))) for one in known])
        far = _worst(known, largest, limit)
        if far:
            text = f"{PLURAL[name]} of {structures(len(far))} exceed {limit:g} {unit}, up to {largest.max():.3g}"
            yield Finding("warning", text, far)


def find_empty_labels(labelled: Sequence[Labelled]) -> Iterator[Finding]:
    """Structures without labels, and labels that say nothing."""
    bare = tuple(one.source for one in labelled if all(getattr(one, name) is None for name in LABELS))
    if bare:
        yield Finding("warning", f"nothing is known of {structures(len(bare))}, which only take time", bare)
    forces = [np.nanmax(np.abs(one.forces)) for one in labelled if one.forces is not None and len(one.atoms) > 1]
    if forces and max(forces) < AT_REST:
        text = f"no force exceeds {1e3 * AT_REST:g} meV/Å: structures at rest teach little about forces"
        yield Finding("warning", text)
    for name in ("stress", "magmoms"):
        known = [one for one in labelled if getattr(one, name) is not None]
        zero = tuple(one.source for one in known if not np.nan_to_num(getattr(one, name)).any())
        # Many a material has no magnetic moments, but hardly one has no stress at all.
        if zero and (name == "stress" or len(zero) == len(known)):
            text = f"{PLURAL[name]} of {structures(len(zero))} are exactly zero: leave out what is not known"
            yield Finding("warning", text, zero)


CHECKS: tuple[Callable[[Sequence[Labelled]], Iterator[Finding]], ...] = (
    find_empty_labels,
    find_duplicates,
    find_outlying_energies,
    find_net_forces,
    find_large_labels,
)


def _worst(labelled: Sequence[Labelled], values: Floats, limit: float) -> tuple[str, ...]:
    """Sources of those whose value exceeds the limit, the largest first."""
    order = np.argsort(-values, kind="stable")
    return tuple(labelled[i].source for i in order.tolist() if values[i] > limit)


def _fingerprint(one: Labelled) -> bytes:
    """The same for structures that are the same to within rounding, in the same setting."""
    atoms = one.atoms
    digest = hashlib.sha256(atoms.numbers.tobytes() + atoms.pbc.tobytes())
    for lengths in (atoms.cell.array, atoms.positions):
        digest.update(np.round(lengths / SAME).astype(np.int64).tobytes())
    return digest.digest()


def _disagree(group: Sequence[Labelled]) -> bool:
    """Whether energies differ by more than 1 meV/atom or forces by more than 0.01 eV/Å."""
    first, n = group[0], len(group[0].atoms)
    for other in group[1:]:
        if first.energy is not None and other.energy is not None and abs(first.energy - other.energy) > 1e-3 * n:
            return True
        if (
            first.forces is not None
            and other.forces is not None
            and np.nanmax(np.abs(first.forces - other.forces)) > 1e-2
        ):
            return True
    return False
