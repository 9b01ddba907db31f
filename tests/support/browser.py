"""Pages in a real browser: Chromium without a window, told what to do over a pipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.optional import missing

_NAMES = ("chromium", "chromium-browser", "google-chrome")

#: Milliseconds that a page may take.
_PATIENCE = 60_000


class Page:
    """A page that is open, by the DevTools protocol.

    Attributes
    ----------
    complaints : list
        What the console, or an exception that nobody caught, said.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = os.fdopen(read, "rb"), os.fdopen(write, "wb")
        self._id = 0
        self._session: str | None = None
        self.complaints: list[Any] = []

    def _message(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            assert byte, "the browser ended"
            text += byte
        found: dict[str, Any] = json.loads(text)
        return found

    def _call(self, method: str, **options: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": options}
        if self._session is not None:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = self._message()
            if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown",
                                        "Log.entryAdded"):  # fmt: skip
                self.complaints.append(answer["params"])
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> None:
        """Go there."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self._call(f"{domain}.enable")
        self.go(url)

    def go(self, url: str) -> None:
        """Go on to another page, and wait until it is there."""
        self._call("Page.navigate", url=url)
        self.wait_for(f"location.href === new URL({json.dumps(url)}).href")

    def evaluate(self, expression: str) -> Any:
        """Return what JavaScript makes, a promise when it is kept."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True,
                            returnByValue=True, timeout=_PATIENCE)  # fmt: skip
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a condition in JavaScript holds."""
        self.evaluate(
            "new Promise((done) => { const look = () => "
            f"({condition}) ? done(true) : setTimeout(look, 20); look(); }})"
        )

    def press(self, key: str) -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key)

    def touch(self, name: str, across: float, down: float) -> None:
        """Touch the element of that id with a finger, at shares of its width and height."""
        box = self.evaluate(
            f"(({{x, y, width, height}}) => ({{x, y, width, height}}))"
            f"(document.getElementById({json.dumps(name)}).getBoundingClientRect())"
        )
        at = {"x": box["x"] + across * box["width"], "y": box["y"] + down * box["height"]}
        self._call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
        self._call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def text(self, name: str) -> str:
        """Return what the element of that id says."""
        said: str = self.evaluate(f"document.getElementById({json.dumps(name)}).textContent")
        return said

    def close(self) -> None:
        self._write.close()
        self._read.close()


@contextmanager
def opened(path: Path, fragment: str, folder: Path) -> Iterator[Page]:
    """Open a page, at a fragment; the browser keeps its files in a folder."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        missing("chromium")
    assert browser is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
    # The pipe has to be the descriptors 3 and 4.
    redirected = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    command = ["bash", "-c", redirected, "-", browser, *options,
               f"--user-data-dir={folder / 'browser'}"]  # fmt: skip
    process = subprocess.Popen(
        command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    page = Page(ours_in, ours_out)
    try:
        page.open(f"{path.as_uri()}#{fragment}")
        yield page
    finally:
        page.close()  # which ends the browser
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
