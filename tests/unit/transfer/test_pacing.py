from __future__ import annotations

from handclock import HandClock

from sarrapipe.transfer.pacing import STEP_BYTES, Pacer


class Scripted:
    """A limiter that answers what it was told to."""

    def __init__(self, *answers: float) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, int]] = []

    def take(self, amount: float, now_ns: int) -> float:
        self.asked.append((amount, now_ns))
        return self.answers.pop(0)


def test_asks_in_steps() -> None:
    limiter = Scripted(0.0)
    pacer = Pacer(limiter, HandClock())
    for _ in range(STEP_BYTES // 16_384 - 1):
        assert pacer.spend(16_384) == 0
    assert limiter.asked == []
    assert pacer.spend(16_384) == 0
    assert limiter.asked == [(STEP_BYTES, 100_000_000_000)]
    assert pacer.spend(1) == 0


def test_remembers_the_longest_pause() -> None:
    clock = HandClock()
    pacer = Pacer(Scripted(2.0, 0.5), clock)
    assert pacer.spend(STEP_BYTES) == 2.0
    clock.now_s = 100.1
    assert pacer.spend(STEP_BYTES) == 0.5
    assert pacer.held_until_s == 102.0


def test_all_streams_pause_while_one_does() -> None:
    """Each would else go on for a step of its own."""
    clock = HandClock()
    pacer = Pacer(Scripted(0.5, 0.25), clock)
    assert pacer.spend(STEP_BYTES) == 0.5
    assert pacer.spend(1) == 0.5
    clock.sleep(0.5)
    assert pacer.spend(1) == 0.0
    assert pacer.spend(STEP_BYTES) == 0.25, "what was received meanwhile counts"
