"""Where a run is recorded, and what stands above it: when, on which kernel, with how many cores."""

import datetime
import os
import pathlib
import platform

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Place:
    """bench/runs/<date>-<kernel>-<cores>[-kind]/, or the folder that was asked for; it is made."""

    def __init__(self, kind="", out=None):
        self.now = datetime.datetime.now(datetime.timezone.utc)
        self.cores = len(os.sched_getaffinity(0))
        name = f"{self.now:%Y-%m-%d}-{platform.release().split('-')[0]}-{self.cores}cores"
        name += f"-{kind}" if kind else ""
        self.out = pathlib.Path(out) if out else ROOT / "bench/runs" / name
        self.out.mkdir(parents=True, exist_ok=True)

    def title(self, what=""):
        when = f"{self.now:%Y-%m-%d %H:%M} UTC, Linux {platform.release()}, {self.cores} cores"
        return f"# {what}, {when}" if what else f"# {when}"
