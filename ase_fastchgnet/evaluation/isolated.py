"""What to do about atoms that have no neighbour.

Their prediction is defined: the model evaluated with no message for that atom, its energy a function of the element
alone.  It is still a prediction far from what CHGNet was trained on, so by default it is not passed over in silence.
"""

import warnings
from typing import Literal, get_args

from torch import Tensor

from ase_fastchgnet.graph import GraphBatch, isolated_atoms

IsolatedPolicy = Literal["ignore", "warn", "error"]


def check_isolated_policy(value: str) -> None:
    """Raises ValueError unless `value` is an IsolatedPolicy."""
    choices = get_args(IsolatedPolicy)
    if value not in choices:
        raise ValueError(f"on_isolated_atoms={value!r} is not one of {', '.join(map(repr, choices))}")


class IsolatedGuard:
    """Ignores, refuses, or warns of the isolated atoms of a moving system: once of each atom, not in every step."""

    def __init__(self, policy: IsolatedPolicy, cutoff: float) -> None:
        self.policy = policy
        self.cutoff = cutoff  # Å
        self._elements = b""
        self._known: set[int] = set()
        self._edge_ptr: Tensor | None = None
        self._alone: list[int] = []

    def check(self, graph: GraphBatch, system: int = 0) -> None:
        """Looks at a batch of one; messages name it `system`.

        A device is waited for only if edges have come or gone since the last graph.
        """
        if self.policy == "ignore":
            return
        if graph.edge_ptr is not self._edge_ptr:
            self._edge_ptr, self._alone = graph.edge_ptr, isolated_atoms(graph).tolist()
        alone = self._alone
        if not alone:
            return
        message = f"system {system}: {_describe(alone, self.cutoff)}"
        if self.policy == "error":
            raise ValueError(message)
        elements = graph.numbers.cpu().numpy().tobytes()
        if elements != self._elements:
            self._elements, self._known = elements, set()
        if not self._known.issuperset(alone):
            warnings.warn(message, stacklevel=3)
        self._known.update(alone)


def _describe(atoms: list[int], cutoff: float) -> str:
    shown = ", ".join(map(str, atoms[:10])) + (f" and {len(atoms) - 10} more" if len(atoms) > 10 else "")
    who = f"atom {shown} has" if len(atoms) == 1 else f"atoms {shown} have"
    return (
        f"{who} no neighbour within {cutoff:g} Å: CHGNet was not trained on such atoms, and their energy depends on "
        "the element alone; check cell and pbc, or pass on_isolated_atoms='ignore' to allow it"
    )
