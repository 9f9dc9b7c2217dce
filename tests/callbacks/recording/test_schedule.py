"""The schedule of a monitor: sampling, flushing and the budget, without a model."""

import math
from types import SimpleNamespace

import pytest

from gradkeeper.callbacks.recording import settings
from gradkeeper.callbacks.recording.settings import Overhead, OverheadMeter, Schedule


class Recorder:
    """Recorder whose steps take 1 s, and a share longer if they are measured."""

    def __init__(self, clock, share, compared_with="twice", steps_per_call=1):
        self.clock, self.share, self.steps_per_call = clock, share, steps_per_call
        self.options = SimpleNamespace(compared_with=compared_with)
        self.every, self.twice, self.changes = 1, False, []
        self.steps = 0

    def measure_every(self, period):
        self.every = period
        self.changes.append(period)

    def measure_twice(self, twice):
        self.twice = twice

    def wait(self, result=None):
        return self.steps

    def call(self):
        for _ in range(self.steps_per_call):
            self.clock.now += 1.0
            if self.steps % self.every == 0:
                self.clock.now += self.share * (2 if self.twice else 1)
            self.steps += 1


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(settings.time, "perf_counter", lambda: clock.now)
    return clock


def run(meter, recorder, calls):
    """Make calls of a train function, and return the calls that measured a step twice."""
    meter.fit_begins()
    twice = []
    for call in range(calls):
        meter.call_begins(recorder)
        if recorder.twice:
            twice.append(call)
        recorder.call()
        meter.call_ends(recorder)
    return twice


def test_every_second_of_32_calls_measures_twice(clock):
    recorder = Recorder(clock, 0.25)
    meter = OverheadMeter(1, None)
    assert run(meter, recorder, 200) == list(range(101, 133, 2))
    assert not recorder.twice
    overhead = meter.overhead
    assert (overhead.pairs, overhead.every) == (16, 1)
    assert overhead.measuring == pytest.approx(0.25)
    assert overhead.quartiles == (pytest.approx(0.25), pytest.approx(0.25))


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_calls_with_and_without_a_measured_step_are_compared(clock, steps_per_call):
    recorder = Recorder(clock, 0.25, "unmeasured", steps_per_call)
    meter = OverheadMeter(3, None)
    assert run(meter, recorder, 133) == []
    assert recorder.changes == [2 * steps_per_call] * 32 + [3]
    assert (meter.overhead.pairs, meter.overhead.every) == (16, 3)
    assert meter.overhead.measuring == pytest.approx(0.25)


def test_steps_that_are_not_recorded_give_no_overhead(clock):
    recorder = Recorder(clock, 0.25, "unmeasured")
    recorder.wait = lambda result=None: 0
    meter = OverheadMeter(2, 0.05)
    run(meter, recorder, 200)
    assert math.isnan(meter.overhead.measuring)
    assert recorder.every == 2


@pytest.mark.parametrize(("budget", "every"), [(0.05, 5), (0.025, 10), (0.5, 2)])
def test_a_budget_increases_the_interval(clock, budget, every):
    recorder = Recorder(clock, 0.25, "unmeasured")
    meter = OverheadMeter(2 if budget == 0.5 else 1, budget)
    run(meter, recorder, 200)
    assert recorder.every == meter.overhead.every == every
    assert meter.overhead.total <= budget or budget == 0.5


def test_a_budget_uses_the_upper_quartile(clock):
    recorder = Recorder(clock, 0.1, "unmeasured")
    meter = OverheadMeter(1, 0.11)
    call = recorder.call

    def measured_steps_vary():
        recorder.share = 0.3 if recorder.steps >= 116 else 0.1
        call()

    recorder.call = measured_steps_vary
    run(meter, recorder, 200)
    assert meter.overhead.measuring == pytest.approx(0.2)
    assert recorder.every == 3  # at least 0.3 / 0.11


def test_a_budget_repeats_the_comparison(clock):
    recorder = Recorder(clock, 0.25, "unmeasured")
    run(OverheadMeter(1, 0.05), recorder, 5200)
    assert recorder.changes == [*[2] * 32, 5] * 2


def test_few_calls_give_no_overhead(clock):
    meter = OverheadMeter(1, None)
    run(meter, Recorder(clock, 0.25), 50)
    assert math.isnan(meter.overhead.host)
    assert str(meter.overhead) == "unknown: too few steps"


def test_time_on_the_host_is_relative_to_the_time_of_steps(clock):
    meter = OverheadMeter(1, None)
    run(meter, Recorder(clock, 0.0), 101)
    with meter.on_host(None):
        clock.now += 4.0
    assert meter.overhead.host == pytest.approx(0.04)


def test_steps_that_still_run_at_a_flush_are_not_time_on_the_host(clock):
    recorder, meter = Recorder(clock, 0.0), OverheadMeter(1, None)
    run(meter, recorder, 101)

    def wait():
        clock.now += 100.0

    recorder.wait = wait
    with meter.on_host(recorder):
        clock.now += 4.0
    assert meter.overhead.host == pytest.approx(0.02)


def test_the_overhead_in_words():
    cost = Overhead(measuring=0.04, quartiles=(0.01, 0.07), pairs=16, every=4, host=0.002)
    assert cost.total == pytest.approx(0.012)
    assert str(cost) == (
        "1.2 % of the training time: a measured step +4.0 % (quartiles +1.0 to +7.0 %, 16 pairs of "
        "steps), one step in 4 is measured; reading, rules and sinks 0.2 %"
    )


def due(schedule, steps):
    """Return the steps after which a flush is due."""
    found = []
    for step in range(1, steps + 1):
        schedule.add(1)
        if schedule.flush_is_due():
            found.append(step)
            schedule.flushed()
    return found


def test_flushes_are_due_after_so_many_steps():
    schedule = Schedule(1, 20, None)
    assert due(schedule, 65) == [20, 40, 60]
    assert schedule.unread_at_most == 20
    assert not schedule.is_switchable
    assert Schedule(2, 20, None).is_switchable
    assert Schedule(1, 20, 0.1).is_switchable


def test_by_default_a_flush_waits_until_it_is_affordable(monkeypatch):
    schedule = Schedule(1, None, None)
    answers = iter([True, False, False, True])
    monkeypatch.setattr(schedule.meter, "look_is_affordable", lambda: next(answers))
    assert due(schedule, 200) == [50, 200]
    assert schedule.unread_at_most == 400


def test_by_default_a_flush_waits_for_400_steps_at_most(monkeypatch):
    schedule = Schedule(1, None, None)
    monkeypatch.setattr(schedule.meter, "look_is_affordable", lambda: False)
    assert due(schedule, 900) == [400, 800]


def test_a_flush_is_affordable_if_it_took_a_thousandth_of_the_time_since(clock):
    meter = OverheadMeter(1, None)
    with meter.on_host(None):
        clock.now += 1.0
    clock.now += 999
    assert not meter.look_is_affordable()
    clock.now += 2
    assert meter.look_is_affordable()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, None, None), "`every_n_steps` must be an integer of at least 1"),
        ((1, 0, None), "`flush_every` must be an integer of at least 1"),
        ((1, None, 1.0), r"`budget` must be a number in \(0, 1\)\. Received: budget=1.0"),
    ],
)
def test_bad_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(*arguments)
