"""Chaos with real processes: clusters whose nodes are killed, stopped and cut off while clients keep an account.

    python3 tests/chaos/run.py [--scenario NAME]... [--rounds N] [--json PATH] [--list]

Exit code: 0 every round of every scenario passed, 1 one failed, 2 something could not run here or the command line is
wrong, 130 interrupted. IRIS_BIN and IRIS_LOADGEN_BIN name the programs; without them those of target/release are taken.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for place in ("tests/e2e", "clients/python/src"):
    sys.path.insert(0, str(ROOT / place))

from harness import report  # noqa: E402
from harness.net import Loopback, Namespaces  # noqa: E402
from harness.round import run_round  # noqa: E402
from scenarios import ALL  # noqa: E402

TARGET = ROOT / "target/chaos"
PASSED, FAILED, UNABLE, INTERRUPTED = 0, 1, 2, 130


def options() -> argparse.Namespace:
    """Return the command line, checked."""
    parser = argparse.ArgumentParser(description="Chaos with real processes.")
    parser.add_argument("--scenario", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="only the quick ones")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="rounds of each scenario (1)")
    parser.add_argument("--json", type=Path, default=TARGET / "report.json", metavar="PATH", help="where the report goes")
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.scenario if name not in ALL]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; --list shows them")
    if chosen.rounds < 1:
        parser.error("--rounds is at least 1")
    return chosen


def find_programs() -> str:
    """Set IRIS_BIN and IRIS_LOADGEN_BIN; return what is missing."""
    for variable, name in (("IRIS_BIN", "iris"), ("IRIS_LOADGEN_BIN", "iris-loadgen")):
        path = os.environ.setdefault(variable, str(ROOT / "target/release" / name))
        if not os.access(path, os.X_OK):
            return f"{path} is no program: run `make build`, or set {variable}"
    return ""


def remove_leftovers(names: list[str]) -> None:
    """Remove the directories of runs that were killed, and what was kept of earlier rounds of these scenarios."""
    for name in names:
        for place in TARGET.glob(f"failed/{name}-[0-9]*"):
            shutil.rmtree(place, ignore_errors=True)
    for lock in TARGET.glob("run-*.lock"):
        with lock.open("wb") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()


@contextlib.contextmanager
def own_directory() -> Iterator[Path]:
    """Yield a directory for the rounds of this run. It is locked, so that others know a living run from a dead one."""
    TARGET.mkdir(parents=True, exist_ok=True)
    home = TARGET / f"run-{os.getpid()}"
    lock = home.with_suffix(".lock")
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)
            lock.unlink()


def run(chosen: argparse.Namespace) -> int:
    """Run what was chosen and write the report."""
    names = chosen.scenario or [name for name, one in ALL.items() if one.quick or not chosen.quick]
    try:
        Namespaces.enter()
        missing = ""
    except OSError as error:
        missing = f"needs network namespaces and mounts, that is root: {error}"
    scenarios = [ALL[name] for name in names]
    results = [report.Result(scenario) for scenario in scenarios]
    for result in results:
        if missing and result.scenario.needs_root:
            result.skipped = missing
    remove_leftovers(names)
    code = PASSED
    began = time.time()
    try:
        with own_directory() as home:
            run_all(results, chosen.rounds, home, has_root=not missing)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        about = {"began_unix_s": int(began), "seconds": round(time.time() - began, 1), "kernel": platform.release()}
        about |= {"cpus": os.cpu_count(), "iris": os.environ["IRIS_BIN"], "interrupted": code == INTERRUPTED}
        report.write(results, chosen.json, about)
    print("\n" + report.table(results) + f"\n{chosen.json} has all of it", flush=True)
    if code == PASSED and any(result.passed < len(result.outcomes) for result in results):
        return FAILED
    if code == PASSED and any(result.skipped for result in results):
        return UNABLE
    return code


def run_all(results: list[report.Result], rounds: int, home: Path, *, has_root: bool) -> None:
    """Run the rounds of all scenarios that can run, and say what comes of each."""
    for result in results:
        if result.skipped:
            print(f"{result.scenario.name}: skipped, it {result.skipped}", flush=True)
            continue
        for number in range(1, rounds + 1):
            network = Namespaces() if has_root else Loopback()
            outcome = run_round(result.scenario, home, network)
            result.outcomes.append(outcome)
            print(report.line(result.scenario, number, outcome), flush=True)
            if outcome.failures:
                keep(home, f"{result.scenario.name}-{number}")


def keep(home: Path, name: str) -> None:
    """Keep the logs, the configuration and the data of a round that failed."""
    place = TARGET / "failed" / name
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(home, place)
    print(f"    kept in {place}", flush=True)


def main() -> int:
    """The program."""
    chosen = options()
    if chosen.list:
        for scenario in ALL.values():
            needs = " (root)" if scenario.needs_root else ""
            print(f"{scenario.name:20} {scenario.about}{needs}")
        return PASSED
    if missing := find_programs():
        print(missing, file=sys.stderr)
        return UNABLE
    # Ended from outside is ended as by Ctrl-C: nodes and directories go, the report stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run(chosen)


if __name__ == "__main__":
    sys.exit(main())
