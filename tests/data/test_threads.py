"""What several threads decode at a time is bounded, and none waits for ever."""

import threading

import pytest

from selfdistill.data import threads
from selfdistill.data.threads import PixelBudget, map_in_threads


class Meter(PixelBudget):
    """Notes the most that was held at a time."""

    most = 0

    def hold(self, pixels):
        super().hold(pixels)
        with self._released:
            self.most = max(self.most, self._held)


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(threads, "num_cores", lambda: 8)


@pytest.mark.parametrize(
    ("sizes", "most"),
    [([3] * 40, 9), ([1, 9, 2, 8, 3, 7] * 6, 10), ([100, 1, 100, 2] * 5, 100), ([0, 10] * 9, 10)],
)
def test_no_more_than_the_limit_or_one_image(sizes, most, many, monkeypatch):
    meter = Meter(10)
    monkeypatch.setattr(threads, "DECODED", meter)

    def work(pixels):
        meter.hold(pixels)
        meter.hold(pixels)  # a second image in place of the first
        return pixels

    assert map_in_threads(work, sizes) == sizes
    assert meter.most <= most
    assert meter._held == 0


def test_a_fault_gives_back_what_was_held(many, monkeypatch):
    meter = Meter(10)
    monkeypatch.setattr(threads, "DECODED", meter)

    def work(pixels):
        meter.hold(pixels)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        map_in_threads(work, [10] * 5)
    assert meter._held == 0


def test_other_threads_do_not_count():
    meter = Meter(10)
    meter.hold(8)
    ended = threading.Thread(target=lambda: meter.hold(8))
    ended.start()
    ended.join(10)
    assert not ended.is_alive()
    assert meter._held == 0


def test_no_more_threads_than_cores(monkeypatch):
    monkeypatch.setattr(threads, "num_cores", lambda: 500)
    used = set(map_in_threads(lambda _: threading.get_ident(), range(2000)))
    assert len(used) <= threads._MAX_THREADS
