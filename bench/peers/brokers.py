"""The servers that are compared: each on a free port and an empty directory, with its settings stated.

`STACKS` lists them. A stack is a server with one choice of durability and how `iris-loadgen` speaks to it. Nothing is
tuned for a benchmark but what would otherwise decide it: limits that drop messages are lifted, and Nagle's algorithm is
off everywhere.
"""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
IRIS = os.environ.get("IRIS_BIN", str(ROOT / "target/release/iris"))
LOADGEN = os.environ.get("IRIS_LOADGEN_BIN", str(ROOT / "target/release/iris-loadgen"))
#: Debian puts brokers where the PATH of other users than root does not lead.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
HINT = "apt-get install mosquitto nats-server, or as root: make bench-peers"


class Broker:
    """A running server; `addr` is its HOST:PORT, `flags` are the generator's, `key` those that name its key."""

    def __init__(self, home, command, flags, key=()):
        self.home, self.flags, self.key = pathlib.Path(home), list(flags), list(key)
        with open(self.home / "log", "ab") as log:
            env = {**os.environ, "PATH": PATH}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.home, env=env)

    def wait(self, what, condition):
        """Wait for the first true value of a condition, and return it; end the process if none comes."""
        started = time.monotonic()
        while not (value := condition()):
            if self.process.poll() is not None or time.monotonic() - started > 60:
                self.stop()
                raise RuntimeError(f"{what}: {(self.home / 'log').read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        return value

    def listens(self):
        host, port = self.addr.rsplit(":", 1)
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Iris(Broker):
    def __init__(self, home):
        data, ports = pathlib.Path(home) / "data", pathlib.Path(home) / "ports.json"
        command = [IRIS, "serve", "--dev", "--data-dir", str(data), "--tcp", "127.0.0.1:0"]
        command += ["--admin", "127.0.0.1:0", "--ports-file", str(ports)]
        super().__init__(home, command, [], ["--key", str(data / "dev.key")])
        self.wait("iris did not start", ports.exists)
        self.addr = json.loads(ports.read_text())["tcp"]


class Mosquitto(Broker):
    """Mosquitto does not choose a free port, so one is looked for; another start follows if it is taken meanwhile."""

    def __init__(self, home, settings, flags):
        home = pathlib.Path(home)
        for attempt in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            self.addr = f"127.0.0.1:{port}"
            lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", f"persistence_location {home}/"]
            # Without it, a broker started by root becomes a user who may not write here.
            lines += [f"user {pwd.getpwuid(os.getuid()).pw_name}", *settings]
            (home / "mosquitto.conf").write_text("\n".join(lines) + "\n")
            super().__init__(home, ["mosquitto", "-c", str(home / "mosquitto.conf")], flags)
            try:
                self.wait("mosquitto did not start", self.listens)
                return
            except RuntimeError:
                if attempt == 4:
                    raise


class Nats(Broker):
    def __init__(self, home, flags, *more):
        home = pathlib.Path(home)
        command = ["nats-server", "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(home), *more]
        super().__init__(home, command, flags)
        ports = self.wait("nats-server did not start", lambda: next(iter(home.glob("*.ports")), None))
        # The file may be there before its text is.
        text = self.wait("nats-server did not start", lambda: (t := ports.read_text()).endswith("}") and t)
        self.addr = json.loads(text)["nats"][0].removeprefix("nats://")
        self.wait("nats-server did not start", self.listens)


class Jetstream(Nats):
    """nats-server with one stream, as iris-loadgen --driver jetstream wants it."""

    def __init__(self, home):
        home = pathlib.Path(home)
        super().__init__(home, ["--driver", "jetstream"], "--jetstream", "--store_dir", str(home / "store"))
        try:
            self.ask("$JS.API.STREAM.CREATE.IRIS", JETSTREAM_STREAM)
        except BaseException:
            self.stop()
            raise

    def ask(self, subject, wish):
        """Ask JetStream for something, and return what it answers."""
        host, port = self.addr.rsplit(":", 1)
        body = json.dumps(wish)
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            said = connection.makefile("rb")
            said.readline()
            line = f'CONNECT {{"verbose":false}}\r\nSUB answer 1\r\nPUB {subject} answer {len(body)}\r\n{body}\r\n'
            connection.sendall(line.encode())
            while not (words := said.readline().split()) or words[0] != b"MSG":
                if not words:
                    raise RuntimeError("nats-server ended the connection")
            answer = json.loads(said.read(int(words[-1])))
        if "error" in answer:
            raise RuntimeError(f"{subject}: {answer['error']}")
        return answer


#: All users' messages, in files, until somebody deletes them: acknowledged ones stay, as is JetStream's default.
JETSTREAM_STREAM = {
    "name": "IRIS",
    "subjects": ["lg.>"],
    "storage": "file",
    "retention": "limits",
    "discard": "old",
    "num_replicas": 1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
}

#: No message is dropped for a slow receiver, as many are under way to it as there are, and each leaves at once.
MOSQUITTO = ["max_queued_messages 0", "max_inflight_messages 0", "set_tcp_nodelay true", "sys_interval 0", "log_type error"]
MOSQUITTO_DURABLE = ["persistence true", "autosave_interval 1", *MOSQUITTO]
MOSQUITTO_MEMORY = ["persistence false", *MOSQUITTO]


def mosquitto(settings, *flags):
    return lambda home: Mosquitto(home, settings, flags)


#: Name: how it starts, the programs it needs, what an answer means and what survives a crash of the machine.
STACKS = {
    "iris": (Iris, [], "`iris serve --dev`: synced to disk before ACCEPTED, kept until the receiver acknowledges"),
    "mosquitto, saved": (
        mosquitto(MOSQUITTO_DURABLE, "--driver", "mqtt", "--persistent"),
        ["mosquitto"],
        "MQTT 3.1.1, QoS 1, persistent sessions; `persistence true`, `autosave_interval 1`: the whole state is written"
        " each second, so what was answered in the last second is lost in a crash; mosquitto syncs no single message",
    ),
    "mosquitto, memory": (
        mosquitto(MOSQUITTO_MEMORY, "--driver", "mqtt"),
        ["mosquitto"],
        "MQTT 3.1.1, QoS 1, clean sessions; `persistence false`: nothing survives a crash",
    ),
    "nats": (
        lambda home: Nats(home, ["--driver", "nats"]),
        ["nats-server"],
        "core NATS, at most once, no answers: a message is delivered to who is there, or gone",
    ),
    "jetstream": (
        Jetstream,
        ["nats-server"],
        "NATS with JetStream: one stream of all subjects in files, one replica, retention by limits (acknowledged messages stay);"
        " a durable push consumer for each user, each message acknowledged; publications without `Nats-Msg-Id`, so a repeated"
        " one would be in twice. A message is in the page cache before it is answered, and synced by a timer (a minute or two; not to be"
        " set before 2.10): a killed server keeps what it answered, a crash of the machine may lose what it answered since then",
    ),
}


def missing(name):
    """The programs that a stack needs and this machine has not."""
    return [program for program in STACKS[name][1] if not shutil.which(program, path=PATH)]


def versions(stacks):
    """What the programs of these stacks say of their versions."""
    flags = {"mosquitto": "-h", "nats-server": "--version", IRIS: "--version"}
    programs = dict.fromkeys(program for name in stacks for program in STACKS[name][1] or [IRIS])
    said = [
        subprocess.run([program, flags[program]], capture_output=True, text=True, check=False, env={**os.environ, "PATH": PATH})
        for program in programs
    ]
    return [(done.stdout + done.stderr).strip().splitlines()[0] for done in said]
