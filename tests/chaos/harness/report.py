"""What is said of a run: a line for each round while it goes on, JSON for programs, a table for people."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .account import percentile
from .round import Outcome, Scenario

COLUMNS = ("name", "rounds", "passed", "accepted", "lost", "doubled", "resurrected", "gap_ms_p99", "dropped", "seconds")


@dataclass
class Result:
    """The rounds of one scenario."""

    scenario: Scenario
    outcomes: list[Outcome] = field(default_factory=list)
    #: Why it did not run; empty: it did.
    skipped: str = ""

    @property
    def passed(self) -> int:
        """How many rounds had no fault."""
        return sum(not outcome.failures for outcome in self.outcomes)

    def row(self) -> dict[str, Any]:
        """Return the member of ``scenarios`` in report.json."""
        gaps = [gap * 1000 for outcome in self.outcomes for gap in outcome.gaps]
        refusals: Counter[str] = Counter()
        copies: Counter[int] = Counter()
        for outcome in self.outcomes:
            refusals.update(outcome.refusals)
            copies.update(outcome.copies)
        row: dict[str, Any] = {"name": self.scenario.name, "rounds": len(self.outcomes), "passed": self.passed}
        for what in ("accepted", "lost", "doubled", "resurrected"):
            row[what] = sum(getattr(outcome.verdict, what) for outcome in self.outcomes)
        row["gap_ms_p99"] = round(percentile(gaps, 0.99), 1)
        row["gap_ms_p50"] = round(percentile(gaps, 0.5), 1)
        row["gap_ms_max"] = round(max(gaps, default=0.0), 1)
        row["gaps_measured"] = len(gaps)
        row["foreign"] = sum(outcome.verdict.foreign for outcome in self.outcomes)
        row["repeated"] = sum(outcome.verdict.repeated for outcome in self.outcomes)
        row["reordered"] = sum(outcome.verdict.reordered for outcome in self.outcomes)
        row["dropped"] = sum(outcome.dropped for outcome in self.outcomes)
        row["refusals"] = dict(sorted(refusals.items()))
        row["accepted_by_copies"] = {str(number): copies[number] for number in sorted(copies)}
        row["seconds"] = round(sum(outcome.seconds for outcome in self.outcomes), 1)
        row["about"] = self.scenario.about
        row["skipped"] = self.skipped
        row["failures"] = [
            f"round {number}: {failure}"
            for number, outcome in enumerate(self.outcomes, 1)
            for failure in outcome.failures
        ]
        row["notes"] = [outcome.notes for outcome in self.outcomes]
        return row


def line(scenario: Scenario, number: int, outcome: Outcome) -> str:
    """Return the line of one round."""
    verdict = outcome.verdict
    gap = f", gap {max(outcome.gaps) * 1000:.0f} ms" if outcome.gaps else ""
    said = "passed" if not outcome.failures else "FAILED"
    text = f"{scenario.name} {number}: {said} in {outcome.seconds:.1f} s, {verdict.accepted} accepted{gap}"
    return "\n".join([text, *(f"    {failure}" for failure in outcome.failures)])


def table(results: list[Result]) -> str:
    """Return the table for people."""
    rows = [list(COLUMNS)]
    rows += [[str(result.row()[column]) for column in COLUMNS] for result in results if not result.skipped]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    ]
    for result in results:
        if result.skipped:
            lines.append(f"{result.scenario.name} was skipped: {result.skipped}")
        lines += [f"{result.scenario.name}, {failure}" for failure in result.row()["failures"]]
    return "\n".join(lines) + "\n"


def write(results: list[Result], path: Path, about: dict[str, Any]) -> None:
    """Write the report as JSON to ``path`` and as text beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "scenarios": [result.row() for result in results]}, indent=1) + "\n")
    path.with_suffix(".txt").write_text(table(results))
