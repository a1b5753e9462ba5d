"""Signals that do not end a server."""

from __future__ import annotations

import signal

from support.server import Server
from support.wait import until


def test_sighup_without_a_configuration_file_changes_nothing_ends_nothing_and_says_so(server: Server) -> None:
    assert server.process
    with server.login("a") as a:
        for count in range(1, 4):
            server.process.send_signal(signal.SIGHUP)
            until(lambda: server.log().count("the configuration was read anew") == count, "it says so")
            assert a.ask("a", b"%d" % count) == "accepted"
        assert [d.payload for d in a.take(3)] == [b"1", b"2", b"3"]
    assert "needs a restart" not in server.log()
    assert server.stop() == 0
