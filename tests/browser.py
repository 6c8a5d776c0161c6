"""A web page in Debian's chromium, controlled through its DevTools protocol, without further packages."""

import asyncio
import base64
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

_TIMEOUT = 300.0  # seconds; long, for busy machines


class Tab:
    """A tab of the browser.

    Args:
        socket: the connection to the tab's DevTools.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result.

        Raises:
            RuntimeError: the browser returned an error.
        """
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=_TIMEOUT)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    async def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression.

        Raises:
            RuntimeError: the expression threw an exception.
        """
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script[:80]}: {result['exceptionDetails'].get('exception', {}).get('description')}")
        return result["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression is true and return its value.

        Raises:
            TimeoutError: it is not true within the time limit.
        """
        async with asyncio.timeout(_TIMEOUT):
            while not (value := await self.run(script)):
                await asyncio.sleep(0.3)
        return value

    async def screenshot(self, file: Path, height: int | None = None) -> None:
        """Write a screenshot of the page, or of its upper `height` pixels, as PNG."""
        size = await self.run("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(height or size[1], size[1]), "scale": 1}
        shot = await self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def open_tab(address: str, width: int, height: int) -> AsyncIterator[Tab]:
    """Open a page in a new browser, which is closed at the end of the block.

    Raises:
        FileNotFoundError: chromium is not installed.
    """
    program = shutil.which("chromium")
    if program is None:
        raise FileNotFoundError("chromium is not installed; install Debian's package.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                   f"--window-size={width},{height}", f"--user-data-dir={profile}", "--remote-debugging-port=0",
                   "--remote-debugging-address=127.0.0.1", "about:blank"]  # fmt: skip
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = await _port(Path(profile, "DevToolsActivePort"), browser)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    target = next(entry for entry in await answer.json() if entry["type"] == "page")
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    tab = Tab(socket)
                    await tab.call("Page.navigate", url=address)
                    await tab.until("document.readyState === 'complete' && location.href !== 'about:blank'")
                    yield tab
        finally:
            browser.terminate()
            browser.wait(60)


async def _port(file: Path, browser: "subprocess.Popen[bytes]") -> str:
    async with asyncio.timeout(_TIMEOUT):
        while not (file.exists() and file.read_text()):
            assert browser.poll() is None, "chromium ended during its start"
            await asyncio.sleep(0.2)
    return file.read_text().split()[0]
