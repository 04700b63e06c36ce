"""Angles: ordered pairs of distinct short edges that leave the same atom."""

from __future__ import annotations

import numpy as np

from .arrays import Ints
from .batch import check_index_range
from .neighbors import Edges


def find_angles(edges: Edges, short_bonds: Ints) -> tuple[Ints, Ints]:
    """angle_ptr (short + 1,) and edges_of_angle (angles, 2), in the order (receiving bond, receiving edge, sending).

    Both edges of a short bond receive, in turn, one angle from every other short edge of their centre.
    """
    receiving = edges.edges_of_bond.take(short_bonds, axis=0).ravel()  # (2 short,)
    sending = np.sort(receiving)  # all short edges, by centre
    centers = edges.center.take(sending)
    degree = np.bincount(centers, minlength=len(edges.ptr) - 1)
    start = np.cumsum(degree) - degree
    center = edges.center.take(receiving)
    n_angles = degree.take(center) - 1  # received by each edge
    ends = np.cumsum(n_angles)
    total = int(ends[-1]) if len(ends) else 0
    check_index_range(angles=total)

    angle_ptr = np.zeros(len(short_bonds) + 1, dtype=np.int32)
    angle_ptr[1:] = ends[1::2]
    # angle k of edge e takes the k-th short edge of its centre, skipping e itself
    itself = np.searchsorted(sending, receiving)
    first = start.take(center) - (ends - n_angles)
    slot = np.arange(total, dtype=np.int32)
    slot += np.repeat(first.astype(np.int32), n_angles)
    slot += slot >= np.repeat(itself.astype(np.int32), n_angles)
    edges_of_angle = np.empty((total, 2), dtype=np.int32)
    edges_of_angle[:, 0] = np.repeat(receiving, n_angles)
    edges_of_angle[:, 1] = sending.take(slot)
    return angle_ptr, edges_of_angle
