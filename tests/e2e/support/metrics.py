"""Prometheus text (exposition format 0.0.4) as numbers."""

from __future__ import annotations

import re
import urllib.request

from .wait import PATIENCE

_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Labels = frozenset[tuple[str, str]]


class Metrics:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self.values: dict[tuple[str, Labels], float] = {}
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            match = _LINE.match(line)
            assert match, f"not a line of the exposition format: {line!r}"
            name, labels, value = match.groups()
            key = (name, frozenset(_LABEL.findall(labels or "")))
            assert key not in self.values, f"{line!r} stands twice"
            self.values[key] = float(value)

    @classmethod
    def read(cls, admin: str, token: str = "") -> Metrics:
        """Fetch and parse; with a token if the admin server asks for one."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://{admin}/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return cls(answer.read().decode())

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum over all series of that name with these labels."""
        wanted = set(labels.items())
        found = [v for (n, have), v in self.values.items() if n == name and wanted <= have]
        assert found, f"no metric {name} {labels}"
        return sum(found)

    def closed(self, reason: str) -> int:
        """Return how many connections ended for that reason."""
        return int(self.sum("iris_connections_closed_total", reason=reason))

    def rejected(self, reason: str) -> int:
        """Return how many SENDs were refused for that reason."""
        return int(self.sum("iris_rejected_total", reason=reason))
