"""How many workers an elastic group has."""

import pytest

from cluster.elastic import group_size


@pytest.mark.parametrize(
    ("machines", "workers"),
    [
        ([1, 1], 2),
        ([1], 1),  # the other machine is gone
        ([0, 1], 1),  # a head that only drivers use
        ([], 1),  # it waits for one
        ([4, 4], 3),
        ([0.5, 1.5], 1),  # a worker does not work on two machines
    ],
)
def test_as_many_workers_as_there_is_room_for(machines, workers):
    assert group_size(1, 3, machines) == workers
