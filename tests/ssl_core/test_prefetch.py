"""Reading ahead changes no item and no order, hides no error, and leaves no thread behind."""

import itertools
import threading
import time

import pytest

from ssl_core.data.loaders.prefetch import TimedIterator, prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "reads ahead"]


def test_items_come_in_order_and_end():
    assert list(prefetch(iter(range(50)), 3)) == list(range(50))
    assert not threads()


def test_no_more_than_the_depth_is_read_ahead():
    taken = itertools.count()
    items = prefetch(taken, 2)
    assert next(items) == 0
    time.sleep(0.2)
    # two wait in the queue, and one waits for room in it
    assert next(taken) <= 1 + 2 + 1
    items.close()
    assert not threads()


def test_an_error_comes_after_the_items_before_it():
    def broken():
        yield 1
        raise OSError("gone")

    items = prefetch(broken(), 4)
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)
    assert not threads()


def test_an_abandoned_reader_ends():
    items = prefetch(itertools.count(), 1)
    next(items)
    del items
    assert not threads()


def test_waiting_is_what_the_reader_takes():
    def slow():
        while True:
            time.sleep(0.03)
            yield 0

    items = TimedIterator(slow())
    for _ in range(5):
        next(items)
        time.sleep(0.01)
    assert 0.5 < items.waiting_share() <= 1
    time.sleep(0.01)
    assert items.waiting_share() == 0
