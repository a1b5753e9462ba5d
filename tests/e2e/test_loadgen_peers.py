"""The load generator against other brokers: the same scenarios, the same check of every message."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loadgen import loadgen
from support.server import clean_env, dies_with_us
from support.wait import PATIENCE

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench/peers"))

import brokers  # noqa: E402

Start = Callable[[str], Any]

DAY = Path(__file__).resolve().parents[2] / "loadgen/examples/day.toml"
MQTT = ("--driver", "mqtt")
MQTT5 = ("--driver", "mqtt5")
JETSTREAM = ("--driver", "jetstream")
#: Flags of the generator by the stack of bench/peers that they are for.
SPOKEN = {
    "mqtt": ("mosquitto, memory", MQTT),
    "mqtt-saved": ("mosquitto, saved", (*MQTT, "--persistent")),
    "mqtt5": ("mosquitto, memory", MQTT5),
    "mqtt-qos0": ("mosquitto, memory", (*MQTT, "--qos", "0")),
    "mqtt5-qos0": ("mosquitto, memory", (*MQTT5, "--qos", "0")),
    "nats": ("nats", ("--driver", "nats")),
    "jetstream": ("jetstream", JETSTREAM),
}
ANSWERS = {"mqtt": "PUBACK", "mqtt-saved": "PUBACK", "mqtt5": "PUBACK", "jetstream": "PubAck"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a stack of ``bench/peers``; all of them are ended with the test."""
    made: list[Any] = []

    def start(stack: str, settings: list[str] | None = None) -> Any:
        if lacks := brokers.missing(stack):
            pytest.skip(f"{' and '.join(lacks)} not found: {brokers.HINT}")
        home = tmp_path / f"broker-{len(made)}"
        home.mkdir()
        made.append(brokers.Mosquitto(home, settings, ()) if settings else brokers.STACKS[stack][0](home))
        return made[-1]

    yield start
    for broker in made:
        broker.stop()


def run(addr: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [loadgen(), *args, "--addr", addr], env=clean_env({}), text=True, capture_output=True,
        timeout=3 * PATIENCE, preexec_fn=dies_with_us, check=False,
    )  # fmt: skip


def sound(broker: Any, out: Path, *args: str) -> dict[str, Any]:
    """Run a scenario that must find nothing wrong. A machine too busy to send anything in a second gets longer."""
    for seconds in (1, 10, 60):
        done = run(broker.addr, *args, "--warmup", "200ms", "--duration", f"{seconds}s", "--json", str(out))
        if "in the steady phase" not in done.stdout:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(out.read_text())
    assert (result["lost"], result["duplicates"], result["reordered"], result["corrupted"]) == (0, 0, 0, 0)
    return result


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("scenario", ["throughput", "latency", "fanin"])
def test_a_broker_delivers_each_message_once_and_whole(start: Start, tmp_path: Path, spoken: str, scenario: str) -> None:
    stack, flags = SPOKEN[spoken]
    more = {"throughput": ["-n", "20", "--payload", "200"], "latency": ["--floor", "0s"], "fanin": ["-n", "51"]}
    result = sound(start(stack), tmp_path / "out", scenario, *flags, *more[scenario])
    assert result["protocol"] == flags[1]
    assert result["delivered"] == result["sent"] > 0
    assert result["delivered_latency_us"]["p50"] > 0 and result["rate_per_s"] > 0
    if spoken in ANSWERS:
        assert result["accepted"] == result["sent"] and result["latency_us"]["p50"] > 0
        assert ANSWERS[spoken] in result["guarantee"]
    else:
        assert result["accepted"] == 0 and result["latency_us"] is None
        assert result["guarantee"].startswith("none")


@pytest.mark.parametrize("spoken", ["mqtt", "nats"])
def test_an_open_loop_keeps_its_rate(start: Start, tmp_path: Path, spoken: str) -> None:
    stack, flags = SPOKEN[spoken]
    result = sound(start(stack), tmp_path / "out", "throughput", *flags, "-n", "10", "--rate", "200")
    assert result["sent"] > 0 and result["environment"]["rate"] == 200


@pytest.mark.parametrize("flags", [MQTT, MQTT5, JETSTREAM], ids=["mqtt", "mqtt5", "jetstream"])
def test_what_came_while_users_were_away_is_there_when_they_come(
    start: Start, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    stack = "jetstream" if flags is JETSTREAM else "mosquitto, saved"
    result = sound(start(stack), out, "offline", *flags, "-n", "10", "--messages", "3000")
    assert result["sent"] == result["accepted"] == result["delivered"] == 3000
    assert result["drain"]["count"] == 3000


@pytest.mark.parametrize("spoken", ["mqtt", "mqtt5", "nats"])
def test_idle_connections_are_held_and_their_memory_is_told(start: Start, tmp_path: Path, spoken: str) -> None:
    stack, flags = SPOKEN[spoken]
    broker = start(stack)
    result = sound(broker, tmp_path / "out", "idle", *flags, "-n", "1200", "--pid", str(broker.process.pid))
    assert result["login"]["count"] == result["connections_open"] == 1200
    assert result["server"]["rss_bytes_per_connection"] > 0
    assert result["server"]["kernel"]["epoll_entries"] >= 1200, "both brokers wait by epoll"


@pytest.mark.parametrize("spoken", ["mqtt", "mqtt5", "nats", "jetstream"])
def test_one_message_reaches_all_who_subscribed_to_its_topic(start: Start, tmp_path: Path, spoken: str) -> None:
    stack, flags = SPOKEN[spoken]
    broker = start(stack)
    result = sound(broker, tmp_path / "out", "fanout", *flags, "-n", "60")
    assert result["recipients_per_send"] == 60 and result["delivered"] == 60 * result["sent"] > 0
    parted = sound(broker, tmp_path / "out", "fanout", *flags, "-n", "60", "--to", "25", "--senders", "2")
    assert parted["recipients_per_send"] == 25 and parted["delivered"] > 10 * parted["sent"] > 0


@pytest.mark.parametrize("spoken", ["mqtt", "mqtt5", "nats", "jetstream"])
def test_all_users_come_back_after_a_cut(start: Start, tmp_path: Path, spoken: str) -> None:
    stack, flags = SPOKEN[spoken]
    result = sound(start(stack), tmp_path / "out", "storm", *flags, "-n", "60")
    assert result["storms"][0]["all_s"] > 0 and result["storms"][0]["users"] == 60


@pytest.mark.parametrize("spoken", ["mqtt", "nats"])
def test_few_send_while_many_are_silent(start: Start, tmp_path: Path, spoken: str) -> None:
    stack, flags = SPOKEN[spoken]
    load = ("composite", *flags, "-n", "100", "--active", "10%", "--hold", "0s")
    result = sound(start(stack), tmp_path / "out", *load)
    assert result["delivered"] == result["sent"] > 0


def test_messages_that_a_broker_answers_and_drops_are_lost(start: Start, tmp_path: Path) -> None:
    settings = ["persistence false", "max_queued_messages 10", "max_inflight_messages 5"]
    broker, out = start("mosquitto, memory", settings), tmp_path / "out"
    load = ("offline", *MQTT, "-n", "2", "--messages", "400", "--drain-wait", "1s", "--json", str(out))
    done = run(broker.addr, *load)
    assert done.returncode == 99, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert result["valid"] and result["accepted"] == 400
    assert 0 < result["lost"] == 400 - result["delivered"]


def test_a_broker_that_goes_away_makes_the_run_invalid(start: Start) -> None:
    broker = start("nats")
    load = subprocess.Popen(
        [loadgen(), "throughput", "--driver", "nats", "-n", "4", "--duration", "10m", "--drain-wait", "1s",
         "--addr", broker.addr],
        env=clean_env({}), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=dies_with_us,
    )  # fmt: skip
    try:
        assert load.stderr is not None and load.stderr.readline(), "it is under way"
        broker.process.kill()
        said, error = load.communicate(timeout=PATIENCE)
    finally:
        load.kill()
        load.wait()
    assert load.returncode == 2 and "INVALID" in said, said + error


@pytest.mark.parametrize(
    ("stack", "flags", "hint"),
    [
        ("nats", ["offline", "--driver", "nats"], "core NATS keeps no message"),
        ("mosquitto, memory", ["offline", *MQTT, "--qos", "0"], "--qos 1"),
        ("mosquitto, memory", ["throughput", "--qos", "1"], "--driver mqtt"),
        ("nats", ["fanin", "--driver", "nats", "--threads", "2"], "one thread"),
        ("nats", ["presence", "--driver", "nats"], "what only Iris"),
        ("mosquitto, memory", ["churn", *MQTT], "what only Iris"),
        ("mosquitto, memory", ["run", str(DAY), *MQTT], "what only Iris"),
        ("nats", ["throughput", *MQTT], "undecodable"),
        ("mosquitto, memory", ["throughput", "--driver", "nats"], "no connection could log in"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(start: Start, stack: str, flags: list[str], hint: str) -> None:
    done = run(start(stack).addr, *flags)
    assert done.returncode == 2 and hint in done.stderr, done.stdout + done.stderr
