"""Senders and readers that live through crashes, and an account of all they sent and got.

The rules of docs/PROTOCOL.md, sections 5 to 7: what got no answer is sent again first, with the same id, in the old
order. So at the end each message must have reached each of its recipients, once, and in the order of its sender.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from iris_client import _protocol as p

from . import ids
from .client import ACCEPTED, Client, Closed, NotYet
from .server import Server
from .wait import PATIENCE, until

#: Unanswered SENDs of a sender, at most.
UNDER_WAY = 48


class Sent(NamedTuple):
    """A message of ours."""

    id: bytes
    to: list[str]
    payload: bytes
    receipt: bool


class Got(NamedTuple):
    """A delivery: which connection of its reader, and what."""

    life: int
    delivery: p.Delivery


def content(sender: str, msg_id: bytes, size: int) -> bytes:
    """Return the only payload that this message may have."""
    seed = hashlib.sha256(sender.encode() + msg_id).digest()
    return seed + seed * (size // 32)


class Sender:
    """Sends until the server goes away; keeps what was not answered."""

    def __init__(self, name: str, recipients: list[str], seed: int) -> None:
        self.name = name
        self.recipients = recipients
        self.random = random.Random(f"{seed} {name}")
        self.sent: dict[bytes, Sent] = {}
        self.unanswered: dict[bytes, Sent] = {}
        self.refusals: set[str] = set()
        self.accepted = 0
        self.lives = 0
        self.receipts: list[Got] = []
        self.drained = False
        self.error: p.ErrorReport | None = None

    def make(self) -> Sent:
        """Return a new message."""
        pick = self.random
        to = pick.sample(self.recipients, pick.choice((1, 1, 1, 2, 4)))
        msg_id = ids.now()
        size = pick.choice((0, 40, 400, 400, 4000, 30_000))
        return Sent(msg_id, to, content(self.name, msg_id, size), pick.random() < 0.3)

    def run(self, server: Server, more: Callable[[], bool]) -> None:
        """One connection: first what got no answer, then new messages while ``more()``."""
        self.lives += 1
        client = server.connect()
        try:
            client.login(self.name, server.token(self.name), 1024)
            seqs: dict[int, Sent] = {}
            for message in list(self.unanswered.values()):
                self.wait_for_room(client, seqs)
                self.send(client, seqs, message)
            while more():
                message = self.make()
                self.sent[message.id] = self.unanswered[message.id] = message
                self.send(client, seqs, message)
                self.wait_for_room(client, seqs)
            client.pump(lambda: self.settle(client, seqs) == 0)
        except ConnectionError:
            # It was sending, and slower than the server's last words.
            client.last_words()
        except Closed:
            pass
        finally:
            self.drained = client.drain is not None
            self.error = client.error
            client.close()

    def wait_for_room(self, client: Client, seqs: dict[int, Sent]) -> None:
        client.pump(lambda: self.settle(client, seqs) < UNDER_WAY)

    def send(self, client: Client, seqs: dict[int, Sent], message: Sent) -> None:
        seq = client.send(
            message.to, message.payload, msg_id=message.id, receipt=message.receipt
        )
        seqs[seq] = message

    def settle(self, client: Client, seqs: dict[int, Sent]) -> int:
        """Book answers and receipts; return how many SENDs are unanswered."""
        for seq in [seq for seq in seqs if seq in client.answers]:
            answer = client.answers.pop(seq)
            message = seqs.pop(seq)
            if answer == ACCEPTED:
                self.accepted += 1
                self.unanswered.pop(message.id, None)
            else:
                self.refusals.add(answer)
        while client.inbox:
            delivery = client.inbox.popleft()
            self.receipts.append(Got(self.lives, delivery))
            if not client.inbox:
                client.ack(delivery.no)
        return len(seqs)


class Reader:
    """Takes and acknowledges what comes until the server goes away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lives = 0
        self.got: list[Got] = []

    def run(self, server: Server, more: Callable[[], bool]) -> None:
        """One connection."""
        self.lives += 1
        client = server.connect()
        try:
            client.login(self.name, server.token(self.name), 64)
            while more():
                try:
                    client.pump(lambda: client.inbox, 0.1)
                except NotYet:
                    continue
                self.take(client)
        except (Closed, ConnectionError):
            pass
        finally:
            client.close()

    def take(self, client: Client) -> None:
        while client.inbox:
            delivery = client.inbox.popleft()
            self.got.append(Got(self.lives, delivery))
            if delivery.no % 16 == 0 or not client.inbox:
                client.ack(delivery.no)

    def empty(self, server: Server) -> None:
        """Read all that waits, in a connection of its own."""
        self.lives += 1
        with server.login(self.name) as client:
            self.got.extend(Got(self.lives, delivery) for delivery in client.drain_inbox())


class Fleet:
    """All senders, readers who are online, and readers who come at the end."""

    def __init__(self, seed: int, senders: int = 5, online: int = 4, offline: int = 3) -> None:
        names = [f"on-{i}" for i in range(online)] + [f"off-{i}" for i in range(offline)]
        self.senders = [Sender(f"s-{i}", names, seed) for i in range(senders)]
        self.online = [Reader(f"on-{i}") for i in range(online)]
        self.offline = [Reader(f"off-{i}") for i in range(offline)]
        self._goes_on = True
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def launch(self, server: Server) -> None:
        """Everybody connects and works, in threads."""
        self._goes_on = True

        def work(one: Sender | Reader) -> None:
            try:
                one.run(server, lambda: self._goes_on)
            except BaseException as failure:  # noqa: BLE001 - raised by join()
                self._failures.append(failure)

        everybody = [*self.senders, *self.online]
        self._threads = [threading.Thread(target=work, args=(one,)) for one in everybody]
        for thread in self._threads:
            thread.start()

    def accepted(self) -> int:
        """How many SENDs were accepted so far."""
        return sum(sender.accepted for sender in self.senders)

    def wait_at_work(self, server: Server) -> None:
        """Wait until everybody is logged in."""
        count = len(self.senders) + len(self.online)
        logged_in = lambda: server.metrics().sum("iris_connections_logged_in")  # noqa: E731
        until(lambda: logged_in() >= count or self._failures, "everybody is logged in")

    def wait_accepted(self, more: int) -> None:
        """Wait until so many more SENDs were accepted."""
        goal = self.accepted() + more
        until(lambda: self.accepted() >= goal or self._failures, "messages are accepted", every=0.002)

    def join(self, *, stop: bool = True) -> None:
        """Wait until all connections have ended; with ``stop``, by themselves if they do not otherwise."""
        self._goes_on = not stop
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self._failures:
            raise AssertionError("a client met what it should not") from self._failures[0]

    def finish(self, server: Server) -> None:
        """Senders send again what got no answer; everybody reads what is left."""
        for sender in self.senders:
            sender.run(server, lambda: False)
            assert not sender.unanswered, f"{sender.name}: {len(sender.unanswered)} unanswered"
            assert not sender.refusals, sender.refusals
        for reader in (*self.online, *self.offline):
            reader.empty(server)
        # Receipts follow the sync of what they are about, and an orderly end waits for both.
        assert server.stop() == 0
        server.start()
        for sender in self.senders:
            sender.lives += 1
            with server.login(sender.name) as client:
                sender.receipts += [Got(sender.lives, d) for d in client.drain_inbox()]

    # ---- the account

    def check(self) -> dict[str, int]:
        """Assert that nothing is lost, doubled, changed, reordered or foreign; return what was counted."""
        sent = {(s.name, m.id): m for s in self.senders for m in s.sent.values()}
        entries = 0
        for reader in (*self.online, *self.offline):
            entries += self.check_reader(reader, sent)
        wanted = sum(len(m.to) for m in sent.values() if m.receipt)
        receipts = self.check_receipts(sent)
        repeated = sum(len(r.got) for r in (*self.online, *self.offline)) - entries
        return {
            "messages": len(sent),
            "inbox entries": entries,
            "repeated after a crash": repeated,
            "receipts wanted": wanted,
            "receipts": receipts,
        }

    def check_reader(self, reader: Reader, sent: dict[tuple[str, bytes], Sent]) -> int:
        expected = {key for key, message in sent.items() if reader.name in message.to}
        first: set[tuple[str, bytes]] = set()
        lives: dict[int, set[tuple[str, bytes]]] = defaultdict(set)
        newest: dict[tuple[int, str], bytes] = {}
        for life, delivery in reader.got:
            key = (delivery.sender, delivery.id)
            assert key in expected, f"{reader.name} got what nobody sent to it: {delivery}"
            assert key not in lives[life], f"{reader.name} has a double entry: {delivery}"
            assert delivery.payload == sent[key].payload, f"{reader.name}: another content"
            before = newest.get((life, delivery.sender), b"")
            assert before < delivery.id, f"{reader.name}: {delivery.sender}'s are out of order"
            newest[life, delivery.sender] = delivery.id
            lives[life].add(key)
            first.add(key)
        lost = expected - first
        assert not lost, f"{reader.name} lost {len(lost)} accepted messages of {len(expected)}"
        return len(expected)

    def check_receipts(self, sent: dict[tuple[str, bytes], Sent]) -> int:
        seen: set[tuple[str, str, bytes]] = set()
        for sender in self.senders:
            lives: dict[int, set[tuple[str, bytes]]] = defaultdict(set)
            for life, delivery in sender.receipts:
                message = sent.get((sender.name, delivery.id))
                assert delivery.flags == p.IS_RECEIPT and delivery.payload == b"", delivery
                assert message and message.receipt, "a receipt of what asked for none"
                assert delivery.sender in message.to, "a receipt from somebody else"
                key = (delivery.sender, delivery.id)
                assert key not in lives[life], f"{sender.name} has a double receipt"
                lives[life].add(key)
                seen.add((sender.name, *key))
        return len(seen)
