"""Cores that are stopped in order and started again, one after the other, while clients work."""

from __future__ import annotations

from harness.round import Round, Scenario


def roll(r: Round) -> None:
    """Restart each core, the next one once the pair is healthy again."""
    for number in (1, 2):
        r.fault()
        r.core(number).stop()
        r.wait_flow(20)
        r.core(number).start()
        r.wait_healthy()
        r.wait_flow(20)


def rolling_restart(r: Round) -> None:
    r.start()
    r.load()
    r.wait_flow()
    roll(r)
    r.end_load()


SCENARIOS = [
    Scenario("rolling-restart", "both cores are restarted in order: no error", rolling_restart, gap_ms=1000, quick=True),
]
