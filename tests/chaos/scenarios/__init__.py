"""All scenarios by name, in the order in which they run."""

from __future__ import annotations

from harness.round import Scenario

from . import kills, partitions, rejoins, rolling, slow

PARTS = (kills, partitions, rejoins, rolling, slow)

ALL: dict[str, Scenario] = {scenario.name: scenario for part in PARTS for scenario in part.SCENARIOS}
