#!/usr/bin/env python3
"""How long a start takes: from an empty directory, and with a million live records after kill -9.

Fills inboxes of users who are logged out with iris-loadgen, kills the server with SIGKILL once a million messages wait,
starts it again on the same directory and takes the times from the start of the process to readiness, and of the
recovery alone as the server itself counts it. Exit code 0 if both targets are met (ready in under 1 s from an empty
directory, a million recovered in under 2 s), 99 if not.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
IRIS = os.environ.get("IRIS_BIN", str(ROOT / "target/release/iris"))
LOADGEN = os.environ.get("IRIS_LOADGEN_BIN", str(ROOT / "target/release/iris-loadgen"))


class Server:
    def __init__(self, data, settings=None):
        """`settings` are configuration keys as the environment names them, as IRIS_NODE__NAME."""
        self.data = pathlib.Path(data)
        self.ports_file = self.data.parent / "ports.json"
        self.ports_file.unlink(missing_ok=True)
        started = time.monotonic()
        self.process = subprocess.Popen(
            [IRIS, "serve", "--dev", "--data-dir", str(self.data), "--tcp", "127.0.0.1:0"]
            + ["--admin", "127.0.0.1:0", "--ports-file", str(self.ports_file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(settings or {})},
        )
        while not self.ports_file.exists():
            if self.process.poll() is not None or time.monotonic() - started > 60:
                sys.exit("the server did not start")
            time.sleep(0.002)
        self.ready_s = time.monotonic() - started
        self.ports = json.loads(self.ports_file.read_text())

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.ports['admin']}/metrics") as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("IRIS_BENCH_DIR")) as temporary:
        data = pathlib.Path(temporary) / "data"
        server = Server(data)
        empty_ready_s = server.ready_s
        rate = 250_000
        seconds = args.messages // rate + 30
        load = subprocess.Popen(
            [LOADGEN, "offline", "--addr", server.ports["tcp"], "--key", str(data / "dev.key")]
            + ["--connections", "100", "--rate", str(rate), "--duration", f"{seconds}s"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + seconds + 30
        while server.metric("iris_inbox_messages") < args.messages:
            if time.monotonic() > deadline or load.poll() is not None:
                sys.exit("the inboxes did not fill")
            time.sleep(0.01)
        server.kill()
        load.kill()
        load.wait()
        server = Server(data)
        figures = {
            "empty_ready_s": round(empty_ready_s, 3),
            "live_records": int(server.metric("iris_inbox_messages")),
            "ready_s": round(server.ready_s, 3),
            "recovery_s": round(server.metric("iris_recovery_seconds"), 3),
        }
        server.kill()
    met = figures["empty_ready_s"] < 1 and figures["recovery_s"] < 2
    met &= figures["live_records"] >= args.messages
    figures["met"] = met
    print(json.dumps(figures))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if met else 99


if __name__ == "__main__":
    sys.exit(main())
