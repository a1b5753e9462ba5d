"""A real Prometheus, and its tool, before servers under test."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .cluster import own_address
from .server import clean_env, dies_with_us
from .wait import PATIENCE, until

#: Below the range that the kernel hands out, on an address that nobody else uses.
PORT = 9090


def promtool(*args: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    tool = shutil.which("promtool")
    if not tool:
        pytest.skip("promtool not found: apt-get install prometheus")
    return subprocess.run(
        [tool, *args], input=stdin, cwd=cwd, text=True, capture_output=True, timeout=PATIENCE, env=clean_env({})
    )


class Prometheus:
    """A Prometheus that scrapes each second."""

    def __init__(self, home: Path, targets: list[str], rules: Path) -> None:
        binary = shutil.which("prometheus")
        if not binary:
            pytest.skip("prometheus not found: apt-get install prometheus")
        home.mkdir()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "iris", "static_configs": [{"targets": targets}]}],
        }
        # JSON is YAML.
        (home / "prometheus.yml").write_text(json.dumps(config))
        checked = promtool("check", "config", str(home / "prometheus.yml"))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        self.address = f"{own_address()}:{PORT}"
        self.home = home
        with open(home / "log", "wb") as log:
            self.process = subprocess.Popen(
                [
                    binary, f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}",
                    f"--web.listen-address={self.address}",
                ],
                env=clean_env({}), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=dies_with_us,
            )  # fmt: skip
        try:
            until(self.is_ready, "Prometheus is ready", every=0.1)
        except BaseException:
            self.close()
            raise

    def is_ready(self) -> bool:
        """Whether it answers questions."""
        assert self.process.poll() is None, (self.home / "log").read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=PATIENCE) as answer:
                return int(answer.status) == 200
        except OSError:
            return False

    def get(self, path: str, **params: str) -> Any:
        """Return what its API answers."""
        query = urllib.parse.urlencode(params)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=PATIENCE) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression, now."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(PATIENCE)
