"""The dashboard, in a browser, before a real cluster of which a core is killed and comes back.

Pictures of the page are kept in the directory that IRIS_PICTURES names, and in the test's own otherwise.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.admin import request
from support.browser import Browser
from support.client import Client
from support.cluster import Cluster, own_address
from support.pictures import colours
from support.server import Server
from support.wait import until

LIGHT, DARK = (0xF6, 0xF7, 0xF9), (0x0D, 0x11, 0x17)
#: Below the range that the kernel hands out.
ADMIN_PORT = 7480
LIVE = "document.body?.dataset.live === 'yes'"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Return a browser of this test's own."""
    browser = Browser(tmp_path)
    yield browser
    browser.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return where pictures are kept."""
    kept = os.environ.get("IRIS_PICTURES", "")
    return Path(kept) if kept else tmp_path / "pictures"


class Load:
    """Clients of an edge that send to each other, until they are told to stop."""

    def __init__(self, clients: list[Client], users: list[str]) -> None:
        self.clients, self.users = clients, users
        self.accepted = 0
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            for client in self.clients:
                for user in self.users[:4]:
                    answer = client.ask(user, b"x" * 64)
                    if answer == "accepted":
                        self.accepted += 1
                    else:
                        self.refused.append(answer)

    def stop(self) -> None:
        """Stop, and wait for the end of it."""
        self._stop.set()
        self._thread.join()


def core(number: int, state: str) -> str:
    """Return whether the page has a core in that state, as JavaScript."""
    return f"document.querySelector('[data-core=\"{number}\"]{state}')"


def number(text: str) -> int:
    """Return a count as the page writes it."""
    return int(text.replace(",", ""))


def test_a_core_that_is_killed_is_shown_lost_the_other_one_used_and_then_both(
    make_cluster: Callable[..., Cluster], browser: Browser, pictures: Path
) -> None:
    cluster = make_cluster(2, 1)
    for node in cluster.nodes:
        node.more = {"node": {"price_per_hour": "0.192"}}
    cluster.start()
    edge, survivor = cluster.edges[0], cluster.cores[1]
    users = [f"user-{index}" for index in range(12)]
    clients = [edge.login(user) for user in users]
    load = Load(clients, users)
    try:
        page = browser.open(f"http://{edge.admin}/")
        of_core = browser.open(f"http://{survivor.admin}/", dark=True)
        both = "[data-link=up]:not([data-shards=\"0\"])"
        for one in (1, 2):
            page.wait(core(one, both), f"core {one} is linked and used")
        page.wait(f"{LIVE} && document.querySelector('[data-figure=connections] b').textContent === '12'", "12 connections")
        page.wait("document.querySelector('[data-figure=\"messages / s\"] b').textContent !== '0'", "messages flow")
        of_core.wait("document.querySelector('[data-mirror=normal]')", "the pair is whole")
        of_core.wait("document.querySelector('[data-edge=\"101\"]')", "the core knows its edge")
        of_core.wait("document.querySelector('[data-figure=\"sync p99\"] b').textContent !== '–'", "syncs are timed")
        threads = page.ask("[...document.querySelectorAll('[data-thread]')].map(row => row.dataset.thread)")
        assert threads == ["iris-r0", "iris-r1", "iris-gateway"]
        assert page.text("[data-resource=connections] td:nth-child(3)") == "12"
        light = colours(page.shot(pictures / "1-edge-before.png"))
        dark = colours(of_core.shot(pictures / "1-core-before.png"))
        assert light[LIGHT] > light[DARK] and dark[DARK] > dark[LIGHT]

        cluster.cores[0].kill()
        page.wait(core(1, '[data-link=down][data-shards="0"]'), "core 1 is lost")
        page.wait(core(2, '[data-link=up][data-shards="16"]'), "the edge uses core 2 for all shards")
        page.wait("document.querySelector('[data-event=shards_failed_over]')", "the failover is among the events")
        page.wait("document.querySelector('[data-problem=core_not_linked]')", "it is a problem, and said so")
        of_core.wait("document.querySelector('[data-mirror=solo][data-mode=solo]')", "the survivor is solo")
        of_core.wait("document.querySelector('[data-event=mirror_solo]')", "which is an event")
        of_core.wait(core(1, "[data-link=down]"), "its mirror is lost")
        page.shot(pictures / "2-edge-killed.png")
        of_core.shot(pictures / "2-core-killed.png")
        before = load.accepted
        until(lambda: load.accepted > before + 20, "messages flow meanwhile")

        cluster.cores[0].start()
        of_core.wait("document.querySelector('[data-mirror=normal]')", "the pair is whole again")
        for one in (1, 2):
            page.wait(core(one, both), f"core {one} is linked and used again")
        page.wait("document.getElementById('problems-card').hidden", "no problem is left")
        page.wait("document.querySelector('[data-figure=connections] b').textContent === '12'", "nobody was lost")
        page.shot(pictures / "3-edge-after.png")
        assert load.refused == []
        assert page.complaints() == [] and of_core.complaints() == []
        assert {address.rsplit("/", 1)[0] for address in page.requests() if not address.startswith("data:")} == {
            f"http://{edge.admin}"
        }, "nothing is loaded from elsewhere"
    finally:
        load.stop()
        for client in clients:
            client.close()


def test_a_node_that_ends_is_shown_as_gone_and_comes_back_by_itself(
    make_cluster: Callable[..., Cluster], browser: Browser
) -> None:
    cluster = make_cluster(1, 1)
    edge = cluster.edges[0]
    # A port of its own, which is the same after the restart.
    edge.more = {"listen": {"admin": f"{own_address()}:{ADMIN_PORT}"}}
    cluster.start()
    page = browser.open(f"http://{edge.admin}/")
    page.wait(LIVE, "the page is live")
    page.wait("document.querySelector('[data-event=ready]')", "the start is among the events")
    edge.kill()
    page.wait("document.body.dataset.live === 'no'", "the page says that there is no connection")
    edge.start()
    page.wait(LIVE, "it is live again")


def test_a_token_is_asked_for_once_and_a_wrong_one_shows_nothing(
    make_server: Callable[..., Server], browser: Browser, tmp_path: Path
) -> None:
    secret = tmp_path / "admin-token"
    secret.write_text("s" * 40)
    server = make_server({"IRIS_LISTEN__ADMIN_TOKEN": str(secret)})
    server.admin_token = "s" * 40
    server.start()
    assert request(server, "GET", "/events", tcp=True)[0] == 401
    page = browser.open(f"http://{server.admin}/")
    page.wait("!document.getElementById('ask').hidden", "it asks for the token")
    assert page.text("#title") == "Iris" and page.text("#tiles") == "", "nothing of the node is shown"
    give = "document.getElementById('token').value = {!r}; document.querySelector('#token-form button').click()"
    page.ask(give.format("w" * 40))
    page.wait("document.getElementById('ask-why').textContent !== ''", "it says that the token is wrong")
    page.ask(give.format("s" * 40))
    page.wait(f"{LIVE} && document.getElementById('ask')?.hidden", "it shows the node")
    page.call("Page.reload")
    page.wait(f"{LIVE} && document.getElementById('ask')?.hidden", "the tab remembers it")
    assert all("ssss" not in address for address in page.requests()), "no address has the token"


def test_refusals_that_begin_are_an_event_on_the_page_and_in_the_log(
    make_server: Callable[..., Server], browser: Browser
) -> None:
    server = make_server({"IRIS_CORE__INBOX_MESSAGES_MAX": "1"}).start()
    page = browser.open(f"http://{server.admin}/")
    page.wait(LIVE, "the page is live")
    with server.login("alice") as alice:
        assert [alice.ask("bob", b"x") for _ in range(3)] == ["accepted", "inbox_full", "inbox_full"]
        page.wait("document.querySelector('[data-event=refusals_began]')", "refusals began")
        page.wait("document.querySelector('[data-reason=\"refused-inbox_full\"]')", "and are counted by reason")
        assert number(page.text('[data-reason="refused-inbox_full"] td:last-child')) == 2
    assert '"event":"refusals_began"' in server.log() and '"reason":"inbox_full"' in server.log()
