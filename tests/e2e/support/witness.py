"""Two clients who mind their own business: they exchange messages in lock-step while others misbehave."""

from __future__ import annotations

import threading

from .server import Server
from .wait import until


class Witness:
    """Exchanges messages from its start to its end."""

    def __init__(self, server: Server, name: str = "witness") -> None:
        self.sender = server.login(f"{name}-a")
        self.receiver = server.login(f"{name}-b")
        self.name = name
        self.count = 0
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                payload = f"exchange {self.count}".encode()
                answer = self.sender.ask(f"{self.name}-b", payload)
                assert answer == "accepted", answer
                (delivery,) = self.receiver.take(1)
                assert delivery.payload == payload, delivery
                self.receiver.ack(delivery.no)
                self.count += 1
                # A pulse, not a load: others need the CPUs, too.
                self._stop.wait(0.002)
        except BaseException as failure:  # noqa: BLE001 - told by check()
            self.failure = failure

    def check(self, exchanges: int = 3) -> None:
        """Assert that it is alive and goes on: so many more exchanges happen now."""
        goal = self.count + exchanges

        def went_on() -> bool:
            if self.failure is not None:
                raise AssertionError("the witness was disturbed") from self.failure
            return self.count >= goal

        until(went_on, "the witness goes on exchanging messages")

    def stop(self) -> None:
        """End, both connections included."""
        self._stop.set()
        self._thread.join()
        self.sender.close()
        self.receiver.close()
