"""Runs every fuzz target for some seconds: `make fuzz SECONDS=60`. Exits with 1 if one found something.

The compiler of the tree does it: libFuzzer's coverage is an LLVM pass that stable rustc has, and AddressSanitizer's
runtime is part of its toolchain; RUSTC_BOOTSTRAP=1 allows the one unstable flag, for these binaries alone. Where the
sanitizer is missing, targets run without it, and the record says so.

What is new lies in target/fuzz/corpus, findings in target/fuzz/findings, what was done in target/fuzz/record.json and
record.md. `--merge` writes the smallest corpus of the same coverage to fuzz/corpus.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FUZZ = ROOT / "fuzz"
#: One allocation, and all memory: nothing that these targets do needs more, whatever an input claims.
MALLOC_MB, RSS_MB = 48, 1024
#: Seconds of one input, after which it counts as a hang.
HANG_S = 10
#: Bytes of an input. Frames and logs of that size reach everything; longer ones only take longer.
INPUT_BYTES = {"wal_recovery": 1024, "config": 8192, "token": 6000}
INPUT_BYTES_DEFAULT = 4096
#: Bytes of the longest input that is kept in the repository.
KEPT_BYTES = 2048
COVERAGE = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
    "-Clink-dead-code",
]
SANITIZER = ["-Zsanitizer=address"]


def targets() -> dict[str, list[str]]:
    """Return the targets in the order of the manifest, with the features that they need."""
    manifest = tomllib.loads((FUZZ / "Cargo.toml").read_text())
    return {one["name"]: one["required-features"] for one in manifest["bin"]}


def host() -> str:
    """Return the triple of this machine."""
    said = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return next(line.split()[1] for line in said.splitlines() if line.startswith("host:"))


def out_dir() -> Path:
    """Return where all of it goes."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "fuzz"


def build(names: list[str], flags: list[str], folder: str) -> Path | None:
    """Return the folder with the binaries of these targets, or None if that failed."""
    triple = host()
    needed = targets()
    features = sorted({feature for name in names for feature in needed[name]})
    command = [os.environ.get("CARGO", "cargo"), "build", "--locked", "--profile", "fuzz", "-p", "iris-fuzz"]
    # With a triple, flags are not those of build scripts and macros.
    command += ["--no-default-features", "--features", ",".join(features), "--target", triple]
    command += [f"--bin={name}" for name in names]
    env = dict(os.environ, RUSTC_BOOTSTRAP="1", RUSTFLAGS=" ".join(flags))
    env["CARGO_TARGET_DIR"] = str(out_dir() / folder)
    done = subprocess.run(command, cwd=ROOT, env=env)
    return out_dir() / folder / triple / "fuzz" if done.returncode == 0 else None


def arguments(name: str) -> list[str]:
    """Return the bounds of a target."""
    return [
        f"-max_len={INPUT_BYTES.get(name, INPUT_BYTES_DEFAULT)}",
        f"-malloc_limit_mb={MALLOC_MB}",
        f"-rss_limit_mb={RSS_MB}",
        f"-timeout={HANG_S}",
    ]


def run(binary: Path, name: str, seconds: int) -> dict[str, object]:
    """Fuzz a target; return what became of it."""
    found, corpus = out_dir() / "findings" / name, out_dir() / "corpus" / name
    found.mkdir(parents=True, exist_ok=True)
    corpus.mkdir(parents=True, exist_ok=True)
    kept = FUZZ / "corpus" / name
    command = [str(binary), *arguments(name), f"-max_total_time={seconds}", "-print_final_stats=1"]
    command += [f"-artifact_prefix={found}/", str(corpus)]
    command += [str(kept)] if kept.is_dir() else []
    log = out_dir() / f"{name}.log"
    started = time.monotonic()
    with log.open("w") as file:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        _, status, used = os.wait4(child.pid, 0)
    text = log.read_text(errors="replace")
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\d+[KMG]?b)", text)
    executed = re.findall(r"stat::number_of_executed_units:\s+(\d+)", text)
    edges, features, inputs, size = covered[-1] if covered else ("0", "0", "0", "0b")
    return {
        "target": name,
        "ok": status == 0,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "executions": int(executed[-1]) if executed else 0,
        "edges": int(edges),
        "features": int(features),
        "inputs": int(inputs),
        "corpus": size,
        "log": str(log),
        "findings": sorted(path.name for path in found.iterdir()),
    }


def merge(binary: Path, name: str) -> None:
    """Write the smallest set of inputs with the same coverage to the repository's corpus."""
    kept, corpus = FUZZ / "corpus" / name, out_dir() / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        command = [str(binary), *arguments(name), f"-max_len={KEPT_BYTES}", "-merge=1", place, str(corpus)]
        command += [str(kept)] if kept.is_dir() else []
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for path in Path(place).iterdir():
            if path.stat().st_size <= KEPT_BYTES:
                shutil.copy(path, kept / path.name)
    count, size = len(list(kept.iterdir())), sum(path.stat().st_size for path in kept.iterdir())
    print(f"{name}: {count} inputs, {size} bytes", flush=True)


def record(results: list[dict[str, object]], sanitizer: bool) -> None:
    """Write down what was done, for machines and for people."""
    rev = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    about = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": rev.stdout.strip(),
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
        "sanitizer": "address" if sanitizer else "none",
        "targets": results,
    }
    (out_dir() / "record.json").write_text(json.dumps(about, indent=1) + "\n")
    lines = [f"{about['date']}, revision {about['revision']}, {about['machine']}, sanitizer: {about['sanitizer']}", ""]
    lines += ["| target | seconds | of a CPU | executions | edges | features | corpus | findings |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for one in results:
        corpus = f"{one['inputs']} inputs, {one['corpus']}"
        cells = [one["target"], one["seconds"], one["cpu_seconds"], f"{one['executions']:,}", one["edges"], one["features"]]
        cells += [corpus]
        lines.append("| " + " | ".join(map(str, [*cells, len(one["findings"]) or "none"])) + " |")
    (out_dir() / "record.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="how long each target runs (60)")
    parser.add_argument("--target", action="append", choices=list(targets()), help="only this one; may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at once (1); beyond the CPUs, each has less of one")
    parser.add_argument("--merge", action="store_true", help="afterwards, write the smallest corpus to fuzz/corpus")
    parser.add_argument("--no-sanitizer", action="store_true", help="without AddressSanitizer: faster")
    args = parser.parse_args()
    names = args.target or list(targets())
    sanitizer = not args.no_sanitizer
    binaries = build(names, COVERAGE + SANITIZER, "address") if sanitizer else None
    if binaries is None:
        sanitizer = False
        binaries = build(names, COVERAGE, "plain")
    if binaries is None:
        print("the targets cannot be built; libFuzzer needs a C++ compiler: apt-get install g++", file=sys.stderr)
        return 2
    results = []
    pool = concurrent.futures.ThreadPoolExecutor(max(1, args.jobs))
    for one in pool.map(lambda name: run(binaries / name, name, args.seconds), names if args.seconds else []):
        name = one["target"]
        results.append(one)
        verdict = "ok" if one["ok"] else f"FAILED, see {one['log']} and {out_dir() / 'findings' / name}"
        print(
            f"{name:<14} {one['executions']:>12,} executions  {one['edges']:>6} edges  "
            f"{one['inputs']:>5} inputs  {one['corpus']:>7}  {verdict}",
            flush=True,
        )
        record(results, sanitizer)
    if args.merge:
        for name in names:
            merge(binaries / name, name)
    return 0 if all(one["ok"] for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
