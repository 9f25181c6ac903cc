"""A short chaos run in the suite; `make chaos` is the long one."""

from tests.load.chaos import Plan, run


def test_nothing_is_lost_doubled_or_out_of_order() -> None:
    verdict, _, _ = run(Plan(messages=120, threads=8, kills=8, seed=11, pace=12.0, accept=60.0, rest=60.0))
    assert verdict.problems == []
    assert verdict.messages == 120
    assert 8 <= verdict.replies <= 120
    assert verdict.retried_turns > 0  # something was hit
    assert verdict.leads > 0
