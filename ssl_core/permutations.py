"""Makes sets of tile permutations that are far apart, the same ones everywhere.

A set whose members differ in few places has ambiguous classes. The affine and projective groups over finite fields are
sharply transitive: their minimum Hamming distance is provably large, and each tile is equally often in each place.
"""

from functools import lru_cache
from itertools import permutations as all_orders

import numpy as np

from ssl_core.errors import UserError

# q: (p, coefficients of a monic irreducible polynomial over GF(p), lowest first, leading 1 left out)
FIELDS = {4: (2, (1, 1)), 8: (2, (1, 1, 0)), 9: (3, (1, 0)), 16: (2, (1, 1, 0, 0)), 25: (5, (2, 0))}
CANDIDATES = 200_000  # random permutations that the greedy search picks from when all are too many


@lru_cache
def permutation_set(grid: int, count: int) -> np.ndarray:
    """Returns a set of permutations of the tiles of a grid.

    Grid 2: 24 (all) or 12 (A4, distance 3); grid 3: 72 (AGL(1,9), distance 8) or 504 (PGL(2,8), distance 7); grid 4:
    240 (AGL(1,16), distance 15); grid 5: 600 (AGL(1,25), distance 24). Any other count is by greedy search.

    Args:
        grid: Tiles along a side.
        count: Permutations in the set.

    Returns:
        [count, grid * grid] int64, read-only: row k puts source tile row[s] into place s.

    Raises:
        UserError: If a grid has fewer than two tiles a side, or there are no `count` permutations.
    """
    tiles = grid * grid
    if grid < 2:
        raise UserError(f"grid is {grid}: a puzzle needs at least 2x2 tiles")
    exact = {(2, 24): lambda: np.array(list(all_orders(range(4)))), (3, 504): pgl2_8}
    if (grid, count) in exact:
        found = exact[grid, count]()
    elif tiles in FIELDS and count == tiles * (tiles - 1):
        found = affine(tiles)
    else:
        found = greedy(tiles, count)
    found.setflags(write=False)
    return found


def default_count(grid: int) -> int:
    """Returns the number of permutations that a grid is used with if none is given."""
    return {2: 24, 3: 72, 4: 240}.get(grid, 100)


def distance(rows: np.ndarray) -> int:
    """Returns the smallest Hamming distance between two rows.

    Args:
        rows: [count, tiles] integers, at least two rows.
    """
    near = [int((rows[i + 1 :] != rows[i]).sum(1).min()) for i in range(len(rows) - 1)]
    return min(near)


def _tables(q: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tables of addition and multiplication of GF(q), [q, q] each.

    An element is the number whose digits in base p are its coefficients.
    """
    p, tail = FIELDS[q]
    degree = len(tail)
    digits = [[(e // p**i) % p for i in range(degree)] for e in range(q)]

    def number(coefficients) -> int:
        return sum(c % p * p**i for i, c in enumerate(coefficients))

    def times(a: list[int], b: list[int]) -> int:
        product = [0] * (2 * degree)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                product[i + j] += x * y
        for i in range(2 * degree - 1, degree - 1, -1):  # x^degree = -tail
            for j, t in enumerate(tail):
                product[i - degree + j] -= product[i] * t
        return number(product[:degree])

    add = np.array([[number([x + y for x, y in zip(a, b)]) for b in digits] for a in digits])
    return add, np.array([[times(a, b) for b in digits] for a in digits])


def affine(q: int) -> np.ndarray:
    """Returns the affine group AGL(1, q): x -> a x + b with a != 0. Two members agree in at most one place.

    Args:
        q: The number of elements of the field, a key of FIELDS.

    Returns:
        [q * (q - 1), q] int64.
    """
    add, times = _tables(q)
    return np.array([add[times[a], b] for a in range(1, q) for b in range(q)])


def pgl2_8() -> np.ndarray:
    """Returns the projective group PGL(2, 8): x -> (a x + b) / (c x + d) on the projective line over GF(8).

    Its nine points are the field's elements and infinity, which is last. Two members agree in at most two places.

    Returns:
        [504, 9] int64.
    """
    add, times = _tables(8)
    inverse = {x: int(np.argmax(times[x] == 1)) for x in range(1, 8)}

    def image(a: int, b: int, c: int, d: int, x: int) -> int:
        top, bottom = (a, c) if x == 8 else (add[times[a, x], b], add[times[c, x], d])
        return 8 if bottom == 0 else int(times[top, inverse[int(bottom)]])

    found = {}
    for a, b, c, d in np.ndindex(8, 8, 8, 8):
        if times[a, d] != times[b, c]:  # the determinant, in characteristic 2
            found.setdefault(tuple(image(a, b, c, d, x) for x in range(9)), None)
    return np.array(list(found))


def greedy(tiles: int, count: int) -> np.ndarray:
    """Returns permutations that are chosen one by one, each as far as possible from those before it.

    Of equally far ones it takes that with the largest mean distance. Above nine tiles the candidates are CANDIDATES
    random permutations, always the same, below all. Source: Noroozi and Favaro 2016 (arXiv:1603.09246), here by the
    smallest distance.

    Args:
        tiles: Tiles of the grid.
        count: Permutations in the set.

    Returns:
        [count, tiles] int64.

    Raises:
        UserError: If there are no `count` candidates, or it is below 2.
    """
    pool = _pool(tiles)
    if not 1 < count <= len(pool):
        raise UserError(f"permutations is {count}: {tiles} tiles allow 2 to {len(pool)}")
    chosen = [0]
    near = (pool != pool[0]).sum(1)
    total = near.astype(np.int64)
    while len(chosen) < count:
        best = int(np.argmax(near.astype(np.int64) * (len(chosen) * tiles + 1) + total))  # ties: largest mean
        chosen.append(best)
        gap = (pool != pool[best]).sum(1)
        near, total = np.minimum(near, gap), total + gap
    return pool[chosen].astype(np.int64)


def _pool(tiles: int) -> np.ndarray:
    if tiles <= 9:
        return np.array(list(all_orders(range(tiles))), np.uint8)
    random = np.random.Generator(np.random.PCG64(0))
    rows = random.permuted(np.tile(np.arange(tiles, dtype=np.uint8), (CANDIDATES, 1)), axis=1)
    rows[0] = np.arange(tiles)
    return np.unique(rows, axis=0)
