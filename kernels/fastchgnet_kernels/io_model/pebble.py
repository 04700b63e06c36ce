"""How much an algorithm of several steps must move between a fast memory of S words and a slow one, at least.

The red-blue pebble game of Hong and Kung: a computation is a graph, a word in fast memory a red pebble. Cut any order
of computing it into parts that move about S words each; then a part is dominated by at most 2S vertices, and
    Q >= S (|V| / T(2S) - 1),        T(S) the most vertices that S vertices can dominate.
For a chain of steps, each of which reads its own inputs and the outputs of the one before, T follows from two functions
of every step: phi(k), the most vertices of the step that k vertices visible to it generate, and psi(k), the most of its
outputs. What a step hands over on chip it hands over for free:
    T(S) = max over k_1 + … + k_n <= S of  phi_1(k_1) + phi_2(k_2 + psi_1(k_1)) + phi_3(k_3 + psi_2(k_2 + psi_1(k_1))) …
The form is that of Zhang, Xiao and Tan (arXiv 2012.15667) as far as we know it; the proof is our own: a path into step
j enters through its inputs or through an output of step j - 1, which what lies before in the dominator dominates.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """What k vertices can generate in one step; both functions must not decrease."""

    phi: Callable[[float], float]  # vertices
    psi: Callable[[float], float]  # outputs among them


GRID = 64  # pieces into which the fast memory is cut when it is dealt out to the steps


def largest_part(steps: Sequence[Step], fast_words: float) -> float:
    """T(S), exactly where S is at most `GRID` words, and never too small where it is more.

    Shares of the steps are whole words, or multiples of S/GRID rounded up: phi and psi do not decrease, so a share that
    is too large gives a T that is too large, and a bound that still holds.
    """
    if not steps or fast_words <= 0:
        return 0.0
    piece = max(1.0, fast_words / GRID)
    pieces = int(fast_words / piece + 1e-9)
    return _most(steps, 0.0, pieces, piece, 0.0 if piece == 1.0 else piece, fast_words)


def _most(steps: Sequence[Step], handed: float, left: int, piece: float, rounding: float, fast_words: float) -> float:
    """The most vertices of `steps`, of which the first is handed `handed` outputs, with `left` pieces to deal out."""
    first, *rest = steps
    best = 0.0
    for pieces in range(left + 1) if rest else [left]:
        visible = min(pieces * piece + rounding, fast_words) + handed
        found = first.phi(visible)
        if rest:
            found += _most(rest, first.psi(visible), left - pieces, piece, rounding, fast_words)
        best = max(best, found)
    return best


def lower_bound(vertices: float, steps: Sequence[Step], fast_words: float) -> float:
    """Q >= S (|V| / T(2S) - 1) words, and never less than nothing."""
    part = largest_part(steps, 2 * fast_words)
    return max(0.0, fast_words * (vertices / part - 1)) if part > 0 else 0.0
