"""Chromium as a test drives it: over a pair of pipes, by the DevTools protocol, without a port and without a library.

``--remote-debugging-pipe`` has the browser read commands from descriptor 3 and write answers and news to descriptor 4, each
one a JSON text that ends with a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .server import clean_env, dies_with_us
from .wait import PATIENCE, until


class Browser:
    """One browser with a profile of its own, and the pages in it."""

    def __init__(self, home: Path) -> None:
        browser = shutil.which("chromium")
        if not browser:
            pytest.skip("chromium not found: apt-get install chromium")
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()

        def prepare() -> None:
            dies_with_us()
            os.setpgid(0, 0)
            # Whatever numbers both have, they become 3 and 4.
            first, second = os.dup(commands), os.dup(answers)
            os.dup2(first, 3)
            os.dup2(second, 4)

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        self.process = subprocess.Popen(
            [browser, *flags, "--remote-debugging-pipe", f"--user-data-dir={home / 'profile'}", "about:blank"],
            env=clean_env({}), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=prepare,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._rest = b""
        self._number = 0
        self.news: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Give a command and return its result."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            command["sessionId"] = session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            said = self._read(deadline)
            if said.get("id") == self._number:
                assert "error" not in said, (method, said["error"])
                result: dict[str, Any] = said["result"]
                return result
            self.news.append(said)

    def _read(self, deadline: float) -> dict[str, Any]:
        """Return the next thing that the browser says."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser says nothing"
            part = os.read(self._from, 1 << 20)
            assert part, f"the browser ended: {self.process.poll()}"
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        said: dict[str, Any] = json.loads(text)
        return said

    def open(self, url: str, dark: bool = False) -> Page:
        """Open a page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.colours("dark" if dark else "light")
        page.call("Page.navigate", url=url)
        return page

    def close(self) -> None:
        """End it, and whatever it started."""
        os.close(self._to)
        os.close(self._from)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE)


class Page:
    """A page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command that is for this page."""
        return self.browser.call(method, self.session, **params)

    def colours(self, scheme: str) -> None:
        """Have the page believe that its reader likes light, or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def attribute(self, selector: str, name: str) -> str | None:
        """Return an attribute of the first element that fits; ``None`` without one."""
        found: str | None = self.ask(f"document.querySelector({selector!r})?.getAttribute({name!r})")
        return found

    def text(self, selector: str) -> str:
        """Return the text of the first element that fits; empty without one."""
        return str(self.ask(f"document.querySelector({selector!r})?.textContent ?? ''"))

    def wait(self, expression: str, what: str) -> None:
        """Wait until a JavaScript expression is true; a page that is still loading may lack what it names."""
        tried = f"(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()"
        try:
            until(lambda: self.ask(tried), what, every=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.ask('document.body.innerText')}\n{self.complaints()}") from None

    def shot(self, path: Path, width: int = 1280, height: int = 1500) -> Path:
        """Write a picture of the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
        return path

    def complaints(self) -> list[str]:
        """Return what went wrong in the page so far: exceptions, errors of the console, things that were not allowed."""
        found = []
        for said in self.browser.news:
            if said.get("sessionId") != self.session:
                continue
            if said["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(said["params"]["exceptionDetails"])[:600])
            if said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                found.append(said["params"]["entry"]["text"] + " " + said["params"]["entry"].get("url", ""))
        return found

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for so far."""
        news = [said for said in self.browser.news if said.get("sessionId") == self.session]
        sent = [said["params"] for said in news if said["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]
