"""A headless Chromium that tests can ask, over its DevTools protocol."""

import asyncio
import shutil
import subprocess
import time
from contextlib import contextmanager

import aiohttp

from tests.waiting import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]


def dump_dom(path, profile):
    """The document as it stands after its scripts ran."""
    command = [CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom"]
    return subprocess.run([*command, f"file://{path}"], capture_output=True, timeout=120, check=True).stdout.decode()


@contextmanager
def opened(path, profile):
    """Gives a function that runs many expressions in the page, each as soon as the one before holds (is truthy)."""
    command = [CHROMIUM, *SWITCHES, f"--user-data-dir={profile}", "--remote-debugging-port=0", f"file://{path}"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = profile / "DevToolsActivePort"
        wait_until(lambda: port_file.exists() and port_file.read_text().strip())
        yield lambda *steps: asyncio.run(_ask(port_file.read_text().split()[0], steps))
    finally:
        browser.terminate()
        browser.wait(30)


async def _ask(port, steps):
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json") as answer:
            page = next(page for page in await answer.json() if page["type"] == "page")
        async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            return [await _until_true(socket, step) for step in steps]


async def _until_true(socket, expression):
    deadline = time.monotonic() + 15
    value = None
    while time.monotonic() < deadline:
        parameters = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        await socket.send_json({"id": 1, "method": "Runtime.evaluate", "params": parameters})
        result = (await socket.receive_json())["result"]
        value = result["result"].get("value", result["result"].get("description"))
        if value and "exceptionDetails" not in result:  # an element may not be there yet
            return value
        await asyncio.sleep(0.05)
    raise AssertionError(f"never held: {expression} (last: {value!r})")
