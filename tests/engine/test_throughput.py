"""Images a second, of the time in which images are trained."""

import pytest

from selfdistill.engine import throughput
from selfdistill.engine.throughput import Throughput


@pytest.fixture
def clock(monkeypatch):
    """A list whose only entry is the time."""
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    return now


def test_is_of_the_time_since_the_last_reading(clock):
    speed = Throughput()
    for seconds, images in ((2, 10), (5, 50)):
        speed.images += images
        clock[0] += seconds
        assert speed.read() == images / seconds


def test_a_pause_does_not_count(clock):
    speed = Throughput()
    speed.images += 30
    clock[0] += 1
    with speed.paused():  # as of an epoch's end
        clock[0] += 50
    clock[0] += 2
    assert speed.read() == 30 / 3


def test_what_follows_a_reading_in_a_pause_does_not_count(clock):
    speed = Throughput()
    speed.images += 8
    clock[0] += 3
    with speed.paused():
        clock[0] += 1  # the device is waited for
        assert speed.read() == 8 / 4
        clock[0] += 20  # the line is written
    speed.images += 8
    clock[0] += 4
    assert speed.read() == 8 / 4
