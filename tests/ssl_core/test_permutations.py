"""What permutation sets promise: their sizes, how far apart their members are, and that they never change."""

import numpy as np
import pytest

from ssl_core.errors import UserError
from ssl_core.permutations import default_count, distance, greedy, permutation_set

GROUPS = [(2, 12, 3), (2, 24, 2), (3, 72, 8), (3, 504, 7), (4, 240, 15), (5, 600, 24)]  # grid, count, distance
GREEDY = [(2, 6), (3, 30), (3, 100), (4, 50), (5, 40)]


def assert_permutations(rows: np.ndarray, grid: int, count: int) -> None:
    assert rows.shape == (count, grid**2) and rows.dtype == np.int64
    assert (np.sort(rows, axis=1) == np.arange(grid**2)).all()
    assert len(np.unique(rows, axis=0)) == count


@pytest.mark.parametrize(("grid", "count", "apart"), GROUPS)
def test_groups_are_far_apart_and_balanced(grid, count, apart):
    rows, tiles = permutation_set(grid, count), grid**2
    assert_permutations(rows, grid, count)
    assert distance(rows) == apart
    for slot in range(tiles):
        assert (np.bincount(rows[:, slot], minlength=tiles) == count // tiles).all()


def test_distance_is_the_smallest_number_of_differing_places():
    assert distance(np.array([[0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0]])) == 2


@pytest.mark.parametrize(("grid", "count"), GREEDY)
@pytest.mark.slow
def test_greedy_sets_hold_distinct_permutations(grid, count):
    assert_permutations(permutation_set(grid, count), grid, count)


def test_greedy_sets_are_further_apart_than_chance():
    random = np.random.default_rng(0)
    drawn = random.permuted(np.tile(np.arange(9), (100, 1)), axis=1)
    assert distance(permutation_set(3, 100)) > distance(drawn)


@pytest.mark.parametrize("tiles", [4, 9, 16])
@pytest.mark.slow
def test_a_larger_greedy_set_continues_a_smaller_one(tiles):
    large = greedy(tiles, 20)
    assert (greedy(tiles, 8) == large[:8]).all()
    assert (greedy(tiles, 20) == large).all()


@pytest.mark.parametrize("grid", [2, 3, 4, 5])
@pytest.mark.slow
def test_every_grid_has_a_default(grid):
    assert permutation_set(grid, default_count(grid)).shape == (default_count(grid), grid**2)


def test_sets_cannot_be_changed_by_who_uses_them():
    with pytest.raises(ValueError, match="read-only"):
        permutation_set(2, 24)[0, 0] = 3


@pytest.mark.parametrize(("grid", "count"), [(1, 1), (0, 2), (2, 25), (2, 1), (3, 1), (3, 0), (3, -1), (3, 362881)])
def test_refuses_sets_that_do_not_exist(grid, count):
    with pytest.raises(UserError):
        permutation_set(grid, count)
