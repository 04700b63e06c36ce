"""What one block of rows of the CPU path touches, call by call, and what of it has left the cache by the next touch.

`gated_message.function` and `gated_update.function` run a block through some thirty calls of torch, each of which reads
and writes arrays of the block from one end to the other. Under least-recently-used replacement a word is still there if
no more than S bytes of other words were touched since: its reuse distance. For row fraction t of an array touched in
call i and again in call j, these are the arrays of the calls between, those of i from t on, and those of j up to t:
linear in t and in the number of rows, so that distances are counted once, in columns, for blocks of any size.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from fastchgnet_kernels.io_model.gated import GatedShape

if TYPE_CHECKING:
    from numpy.typing import NDArray

Columns: TypeAlias = "NDArray[np.float64]"
Kind = Literal["pass", "exp", "norm", "product", "gather"]


class Call(NamedTuple):
    """One call of torch; its arrays by name, a * marks those that are new memory in every block."""

    kind: Kind
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    inner: int = 0  # of a matrix product, columns that are summed over
    outer: int = 0  # and columns of the result


class Access(NamedTuple):
    """A read, write or both of an array by a call."""

    call: int
    columns: int
    near: float  # reuse distance of the first row and of the last one, columns; infinite for new memory
    far: float
    reads: bool
    writes: bool
    name: str

    def missed(self, fitting: Columns) -> Columns:
        """Fraction of the rows that have left a cache in which so many columns of a block fit."""
        low, high = sorted((self.near, self.far))
        if high == low:
            return np.where(fitting < low, 1.0, 0.0) if np.isfinite(low) else np.ones_like(fitting)
        return np.clip((high - fitting) / (high - low), 0.0, 1.0)


class Trace(NamedTuple):
    calls: tuple[Call, ...]
    columns: dict[str, int]
    accesses: tuple[Access, ...]

    @property
    def working_set(self) -> int:
        """Columns of all arrays of a block, new memory left out."""
        return sum(width for name, width in self.columns.items() if "*" not in name)

    def widest(self, call: Call) -> int:
        """Columns of the widest array of a call."""
        return max((self.columns[name] for name in (*call.reads, *call.writes)), default=0)

    def moved(self, fitting: Columns) -> Columns:
        """Columns that each call moves across the border of a cache in which `fitting` columns fit, (calls, *fitting).

        What is missed is fetched, what was changed before is written back first; writing fetches, too.
        """
        changed: dict[str, Columns] = {}  # fraction of an array that differs from what lies beyond the cache
        found = np.zeros((len(self.calls), *fitting.shape))
        missed = [access.missed(fitting) for access in self.accesses]
        for _ in range(2):  # the second time, a block that follows another one
            found[:] = 0.0
            for access, gone in zip(self.accesses, missed, strict=True):
                before = changed.get(access.name, np.zeros_like(fitting))
                found[access.call] += access.columns * gone * (1.0 + before)
                changed[access.name] = np.ones_like(fitting) if access.writes else before * (1.0 - gone)
        return found


def traces(shape: GatedShape) -> tuple[Trace, Trace]:
    """Of a block of the forward pass, and of one of the backward pass, in which the MLP is computed again."""
    return _traces(
        shape._replace(messages=0, segments=min(shape.segments, 1), table_rows=0, factor_rows=min(shape.factor_rows, 1))
    )


@lru_cache(maxsize=32)
def _traces(shape: GatedShape) -> tuple[Trace, Trace]:
    forward, again = [*_forward(shape), *_reduce(shape)], [*_forward(shape), *_spread(shape), *_backward(shape)]
    return _trace(forward, shape), _trace(again, shape)


def _trace(calls: list[Call], shape: GatedShape) -> Trace:
    columns = {name: _columns(name, shape) for call in calls for name in (*call.reads, *call.writes)}
    return Trace(tuple(calls), columns, tuple(_accesses(calls, columns)))


def _columns(name: str, shape: GatedShape) -> int:
    d = shape.width
    if name == "table*":
        return 2 * d * shape.gathered
    if name in ("x*", "grad x*"):
        return shape.dense
    return 2 * d if name in ("z", "sigma", "h", "grad h", "slope", "grad z*") else d


def _forward(shape: GatedShape) -> list[Call]:
    """`Rows.block` and `reference.forward`. What a one-layer MLP norms are the halves of z."""
    calls = [Call("gather", ("table*",), ("z",))]
    if shape.dense:
        calls.append(Call("product", ("x*", "z"), ("z",), shape.dense, 2 * shape.width))
    core, gate = ("z", "z")
    if shape.layers == 2:
        core, gate = ("core", "gate")
        calls += [Call("pass", ("z",), ("sigma",)), Call("exp", ("sigma",), ("sigma",))]
        calls += [Call("pass", ("z", "sigma"), ("h",))]
        calls += [Call("product", ("h",), (half,), shape.width, shape.width) for half in (core, gate)]
    calls += [Call("norm", (core,), ("a",)), Call("norm", (gate,), ("b",))]
    calls += [Call("exp", ("a",), ("sigmoid a",)), Call("exp", ("b",), ("sigmoid b",))]
    return [*calls, Call("pass", ("a", "sigmoid a"), ("p",)), Call("pass", ("p", "sigmoid b"), ("p",))]


def _reduce(shape: GatedShape) -> list[Call]:
    if not shape.segments:
        return [Call("pass", ("out*", "p"), ("out*",))]
    weight = Call("gather", ("factor*",), ("weight",))
    nothing = Call("pass", (), ())  # on pointers before, to put the sums where they belong after: short, but calls
    return [weight, nothing, Call("pass", ("weight", "p"), ("weight",)), Call("gather", ("weight",), ()), nothing]


def _spread(shape: GatedShape) -> list[Call]:
    """The gradient of the messages: of an update it is there already."""
    if not shape.segments:
        return []
    calls = [Call("gather", ("grad out*",), ("grad",)), Call("pass", ("grad", "p"), ("grad w*",))]
    return [*calls, Call("gather", ("factor*",), ("weight",)), Call("pass", ("grad", "weight"), ("grad",))]


def _backward(shape: GatedShape) -> list[Call]:
    """`reference.backward` and `Rows.block_backward`."""
    d, (core, gate) = shape.width, ("core", "gate") if shape.layers == 2 else ("z", "z")
    grad = "grad" if shape.segments else "grad out*"
    calls = [
        Call("pass", ("sigmoid b", "p"), ("grad a",)),
        Call("pass", ("p", "sigmoid a", "grad a"), ("grad a",)),
        Call("pass", ("grad a", grad), ("grad a",)),
        Call("pass", ("p", "sigmoid b"), ("grad b",)),
        Call("pass", ("grad b", grad), ("grad b",)),
        Call("norm", ("grad a", core), ("grad core",)),
        Call("norm", ("grad b", gate), ("grad gate",)),
    ]
    if shape.layers == 2:
        calls += [Call("product", (half,), ("grad h",), d, d) for half in ("grad core", "grad gate")]
        calls += [Call("pass", ("h", "sigma"), ("slope",)), Call("pass", ("slope", "sigma"), ("slope",))]
        calls += [Call("pass", ("grad h", "slope"), ("grad z*",))]
    else:
        calls += [Call("pass", (half,), ("grad z*",)) for half in ("grad core", "grad gate")]
    return [*calls, Call("product", ("grad z*",), ("grad x*",), 2 * d, shape.dense)] if shape.dense else calls


def _accesses(calls: list[Call], columns: dict[str, int]) -> list[Access]:
    touched = [set(call.reads) | set(call.writes) for call in calls]
    found = []
    for j, call in enumerate(calls):
        for name in sorted(touched[j]):
            before = [i for i in range(j) if name in touched[i]]
            if before:
                near, far = _distances(name, touched[before[-1]], touched[before[-1] + 1 : j], touched[j], columns)
            elif "*" in name:
                near = far = float("inf")
            else:  # since the block before this one
                last = max(i for i, names in enumerate(touched) if name in names)
                near, far = _distances(name, touched[last], touched[last + 1 :] + touched[:j], touched[j], columns)
            found.append(Access(j, columns[name], near, far, name in call.reads, name in call.writes, name))
    return found


def _distances(
    name: str, first: set[str], between: list[set[str]], last: set[str], columns: dict[str, int]
) -> tuple[float, float]:
    """Columns touched between two touches of the first row of an array, and of the last one, the array's included."""
    always = set().union({name}, *between, first & last)
    fixed = sum(columns[other] for other in always)
    near = fixed + sum(columns[other] for other in first - always)
    return near, fixed + sum(columns[other] for other in last - always)
