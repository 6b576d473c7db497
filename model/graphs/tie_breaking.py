"""Which of two equally near triangles a grid point gets, as when the published checkpoints were trained.

Some grid points lie exactly over an edge of the mesh (on the meridians 0°, 180° and others of its symmetry), and
both triangles are equally near to the last bit. The checkpoints were trained with a bounding-volume search that
then takes whichever its search tree and sort put first. A network sees the third corner, so agreement with it
needs the same choice. This module reproduces the three orderings that decide:

- the sort-tile-recursive packing (Leutenegger et al. 1997) of the triangles' boxes into tree nodes of 70, whose
  sorts are introsorts (Musser 1997; the pivot is the median of the second, middle and last, and ranges of up to
  16 are left to one final insertion sort), unstable among equal keys;
- the depth-first visit of the tree, last child first;
- the sort of the candidates' distances by a bitonic network (Batcher 1968), unstable as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_NODE_CAPACITY = 70
_SMALL_RANGE = 16
_SMALLEST_NETWORK = 8


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One level of the tree: boxes and how they are grouped.

    Args:
        low, high: corners of the boxes, shape (box, 3).
        groups: numbers of the boxes in each node above.
    """

    low: np.ndarray
    high: np.ndarray
    groups: list[np.ndarray]


class BoundingBoxTree:
    """A packed tree of axis-aligned boxes whose queries keep the visiting order.

    Args:
        low, high: corners of the boxes, float64, shape (box, 3).
    """

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._levels: list[_Level] = []
        while True:
            groups = _tile(low + high)
            self._levels.append(_Level(low=low, high=high, groups=groups))
            if len(groups) == 1:
                break
            low, high = (
                np.array([low[group].min(axis=0) for group in groups]),
                np.array([high[group].max(axis=0) for group in groups]),
            )

    def overlapping(self, low: np.ndarray, high: np.ndarray) -> list[int]:
        """Numbers of the boxes that touch the box from ``low`` to ``high`` (shape (3,)), as visited."""
        found: list[int] = []
        pending = [(len(self._levels) - 1, 0)]
        while pending:
            depth, number = pending.pop()
            level = self._levels[depth]
            group = level.groups[number]
            touching = group[((level.low[group] <= high) & (level.high[group] >= low)).all(axis=1)]
            if depth == 0:
                found.extend(touching.tolist())
            else:
                pending.extend((depth - 1, child) for child in touching.tolist())
        return found


def _tile(centres: np.ndarray) -> list[np.ndarray]:
    """Group boxes by sorting them along x, cutting slabs, sorting each along y, and so on."""
    groups: list[np.ndarray] = []

    def cut(numbers: np.ndarray, axis: int) -> None:
        numbers = numbers[introsort_order(centres[numbers, axis])]
        nodes = -(-numbers.size // _NODE_CAPACITY)
        slabs = int(np.ceil(np.sqrt(nodes)))
        step = _NODE_CAPACITY * slabs
        if slabs == 1 or axis == centres.shape[1] - 1 or step == numbers.size:
            groups.extend(np.split(numbers, range(_NODE_CAPACITY, numbers.size, _NODE_CAPACITY)))
            return
        for start in range(0, numbers.size, step):
            cut(numbers[start : start + step], axis + 1)

    cut(np.arange(centres.shape[0]), 0)
    return groups


def introsort_order(keys: np.ndarray) -> np.ndarray:
    """The permutation in which an introsort leaves ``keys``; equal keys in that algorithm's order.

    Args:
        keys: shape (n,).
    """
    key = keys.tolist()
    order = list(range(len(key)))

    def move_median_first(first: int, last: int) -> None:
        trio = [first + 1, first + (last - first) // 2, last - 1]
        a, b, c = (key[order[place]] for place in trio)
        if a < b:
            median = 1 if b < c else (2 if a < c else 0)
        else:
            median = 0 if a < c else (2 if b < c else 1)
        place = trio[median]
        order[first], order[place] = order[place], order[first]

    def partition(first: int, last: int) -> int:
        pivot = key[order[first]]
        left, right = first + 1, last
        while True:
            while key[order[left]] < pivot:
                left += 1
            right -= 1
            while pivot < key[order[right]]:
                right -= 1
            if left >= right:
                return left
            order[left], order[right] = order[right], order[left]
            left += 1

    pending = [(0, len(order))]
    while pending:
        first, last = pending.pop()
        while last - first > _SMALL_RANGE:
            move_median_first(first, last)
            middle = partition(first, last)
            pending.append((middle, last))
            last = middle
    for place in range(1, len(order)):
        item = order[place]
        slot = place
        while slot and key[item] < key[order[slot - 1]]:
            order[slot] = order[slot - 1]
            slot -= 1
        order[slot] = item
    return np.array(order, dtype=np.int64)


def bitonic_order(keys: np.ndarray) -> np.ndarray:
    """The permutation in which a bitonic sorting network leaves ``keys``; equal keys are never exchanged.

    Args:
        keys: finite, shape (n,).
    """
    width = _SMALLEST_NETWORK
    while width < keys.size:
        width *= 2
    lane = np.arange(width)
    order, key = lane.copy(), np.full(width, np.inf)
    key[: keys.size] = keys
    size = 2
    while size <= width:
        start = lane // size * size
        partners = [2 * start + size - 1 - lane]
        distance = size // 4
        while distance:
            partners.append(lane ^ distance)
            distance //= 2
        for partner in partners:
            kept = np.where(lane > partner, np.maximum(key, key[partner]), np.minimum(key, key[partner]))
            order = np.where(kept == key, order, order[partner])
            key = kept
        size *= 2
    return order[order < keys.size]
