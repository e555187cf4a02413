"""The page in a real browser, over the real server."""

import asyncio
import base64
import io
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from genlab.core.storage import locate
from genlab.imaging.images import Pixels
from genlab.models.model import InterpolationOptions
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.vae import VAE, VAEArchitecture
from genlab.serving.limits import Limits
from genlab.serving.problems import Problem, problem_response
from genlab.serving.service import create_app
from genlab.serving.settings import Access, Settings
from genlab.serving.telemetry import PrometheusTelemetry
from genlab.serving.tokens import add_token
from genlab.store import model_directory
from genlab.store.aliases import set_alias
from genlab.store.directions import load_directions
from genlab.store.model_store import ModelStore
from tests.inference.support import PROVENANCE
from tests.serving.webdriver import CHROMIUM, DRIVER, Browser, browsing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"),
]

PHONE, DESK = (390, 844), (1280, 900)
SHOWN = "document.querySelector('h2')?.textContent === given[0]"
PLACE = "[...document.querySelectorAll('.panel')].find(panel => panel.ariaLabel === 'Latent space')"
SLIDERS = f"[...{PLACE}.querySelectorAll('input[type=range]')].map(slider => +slider.value)"
PIXELS = """(() => {
  const shown = document.querySelector(given[0])
  const width = shown.naturalWidth ?? shown.width, height = shown.naturalHeight ?? shown.height
  const canvas = Object.assign(document.createElement("canvas"), { width, height })
  const context = canvas.getContext("2d")
  context.drawImage(shown, 0, 0)
  return [height, width, btoa(String.fromCharCode(...context.getImageData(0, 0, width, height).data))]
})()"""
DROP = """(() => {
  const bytes = Uint8Array.from(atob(given[1]), (letter) => letter.charCodeAt(0))
  const dataTransfer = new DataTransfer()
  dataTransfer.items.add(new File([bytes], given[2], { type: given[3] }))
  document.querySelector(given[0]).dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }))
})()"""
SET = """(input => {{
  input.value = given[0]
  input.dispatchEvent(new Event("input", {{ bubbles: true }}))
}})({})"""
CONTROLS = {"button", "combobox", "link", "radio", "slider", "spinbutton", "textbox"}
"""Roles in the accessibility tree."""


class Counted:
    """An application with the most requests of each operation that it had at a time.

    Attributes:
        pause: seconds that each request waits first.
        refusals: how many requests to decode are refused next, for now.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.pause = 0.0
        self.refusals = 0
        self.most: dict[str, int] = defaultdict(int)
        self._now: dict[str, int] = defaultdict(int)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope.get("path", "").rpartition("/")[2]
        if name == "decode" and self.refusals:
            self.refusals -= 1
            await problem_response(Problem(503, "overloaded", "many are waiting", 1), "")(scope, receive, send)
            return
        self._now[name] += 1
        self.most[name] = max(self.most[name], self._now[name])
        try:
            await asyncio.sleep(self.pause)
            await self.app(scope, receive, send)
        finally:
            self._now[name] -= 1


@contextmanager
def serving(*runs: Path, access: Access | None = None) -> Iterator[tuple[str, Counted]]:
    """A server of these runs in a thread, as its address and the count of its requests."""
    listening = socket.create_server(("127.0.0.1", 0))
    models = tuple(map(str, runs))
    app = Counted(
        create_app(models, Limits(), access or Access(), Settings(runtime="pytorch", exact=True), PrometheusTelemetry())
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        while httpx.get(f"{url}/readyz", trust_env=False).status_code != 200:
            time.sleep(0.05)
        yield url, app
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def server(served_runs: Path, edited_runs: Path) -> Iterator[tuple[str, Counted]]:
    names = ("digits", "monet", "classes")
    edited = (edited_runs / name for name in ("faces", "encoder"))
    with serving(*(served_runs / name for name in names), *edited) as running:
        yield running


@pytest.fixture(scope="module")
def url(server: tuple[str, Counted]) -> str:
    return server[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


def show(browser: Browser, url: str, name: str, size: tuple[int, int] = DESK, dark: bool = False) -> None:
    """Load the page anew, with a model shown on it."""
    browser.open("about:blank")
    browser.window(*size, dark=dark)
    browser.open(f"{url}/#{name}")
    browser.wait(SHOWN, name)


def pixels_on(browser: Browser, selector: str) -> Pixels:
    """Return what a picture or a canvas shows: uint8 [H, W, 3]."""
    height, width, data = browser.evaluate(PIXELS, selector)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[:, :, :3]


def until_shown(browser: Browser, selector: str, pixels: Pixels) -> None:
    """Wait until a picture or a canvas shows these pixels."""
    end = time.monotonic() + 120
    while not np.array_equal(pixels_on(browser, selector), pixels):
        assert time.monotonic() < end
        time.sleep(0.1)


def drop(browser: Browser, selector: str, data: bytes, name: str = "picture.png", kind: str = "image/png") -> None:
    browser.evaluate(DROP, selector, base64.b64encode(data).decode(), name, kind)


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def model_of(run: Path) -> Any:
    return model_directory.load(run / "model")


def save_vae(directory: Path, seed: int) -> Path:
    """Write a model directory of a VAE of 16x16."""
    torch.manual_seed(seed)
    model = VAE((16, 16, 1), VAEArchitecture(channels=(4, 4))).eval().requires_grad_(False)
    model_directory.save(directory, model, PROVENANCE)
    return directory


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_ask_for_nothing_from_another_host(browser: Browser, url: str, path: str) -> None:
    browser.open("about:blank")
    browser.requested(), browser.complaints()
    browser.open(url + path)
    browser.wait("document.querySelector(given[0])", "figure img[src]" if path == "/" else ".opblock")
    asked = [each for each in browser.requested() if each.startswith(("http:", "https:", "ws:", "wss:"))]
    assert len(asked) >= 4
    assert [each for each in asked if not each.startswith(f"{url}/")] == []
    assert browser.complaints() == [], "neither errors nor anything against the Content-Security-Policy"


def test_the_picture_follows_a_slider(browser: Browser, url: str, served_runs: Path) -> None:
    show(browser, url, "digits")
    browser.wait(f"{PLACE}.querySelector('figcaption').textContent.includes('z = (0.00, 0.00)')")
    for _ in range(3):
        browser.type(".panel input[type=range]", "\ue014")  # the right arrow key
    browser.wait(f"{PLACE}.querySelector('figcaption').textContent.includes('z = (0.03, 0.00)')")
    expected = model_of(served_runs / "digits").decode(torch.tensor([[0.03, 0.0]]))[0].numpy()
    np.testing.assert_array_equal(pixels_on(browser, ".panel figure img"), np.repeat(expected, 3, axis=2))


def test_the_picture_follows_the_hand_by_one_request_at_a_time(
    browser: Browser, server: tuple[str, Counted], served_runs: Path
) -> None:
    url, counted = server
    show(browser, url, "classes")
    browser.wait(f"{PLACE}.querySelector('figcaption').textContent.includes('z = (0.00, 0.00)')")
    browser.click(".panel .choices label:nth-of-type(2)")
    counted.most.clear()
    counted.pause = 0.1
    side = browser.evaluate("document.querySelector('.plane').getBoundingClientRect().width")
    end = int(side / 4)
    browser.drag(".plane", [(0, 0), *((end * step // 20, -end * step // 20) for step in range(1, 21))])
    place = browser.evaluate(SLIDERS)
    assert place == pytest.approx([1.5, 1.5], abs=0.05)
    text = f"z = ({place[0]:.2f}, {place[1]:.2f})"
    browser.wait(f"{PLACE}.querySelector('figcaption').textContent.startsWith(given[0])", text)
    counted.pause = 0.0
    assert counted.most["decode"] <= 2, "one for the picture, and one for the map of the class"
    expected = model_of(served_runs / "classes").decode(torch.tensor([place]), torch.tensor([1]))[0].numpy()
    shown = pixels_on(browser, ".panel figure img")
    assert np.abs(shown.astype(int) - expected).max() <= 1, "sliders show two digits"


LATEST = """(async () => {
  const { latest } = await import("./page/latest.js")
  const begun = [], errors = []
  let refusals = 2
  const run = latest(async (value) => {
    begun.push(value)
    await new Promise((done) => setTimeout(done, 20))
    if (value === 5 && refusals-- > 0) throw Object.assign(new Error("later"), { retryAfter: 0.01 })
    if (value === 6) throw new Error("never")
  }, (error) => errors.push(error.message))
  const first = run(1)
  run(2), run(3), run(4)
  await first
  await run(5)
  await run(6)
  return [begun, errors]
})()"""


def test_of_what_waits_only_the_latest_is_asked_and_again_when_the_server_says_so(browser: Browser, url: str) -> None:
    show(browser, url, "digits")
    assert browser.evaluate(LATEST) == [[1, 4, 5, 5, 5, 6], ["later", "later", "never"]]


def test_a_dropped_picture_finds_its_place_in_the_models_size(browser: Browser, url: str, served_runs: Path) -> None:
    show(browser, url, "digits")
    pixels = noise(28, 28)
    drop(browser, ".panel .drop", png(pixels.repeat(2, axis=0).repeat(2, axis=1)))
    mean = model_of(served_runs / "digits").encode(torch.from_numpy(pixels)[None, :, :, None])[0][0].tolist()
    browser.wait("document.querySelector('.panel form > figure:not([hidden])')")
    np.testing.assert_allclose(browser.evaluate(SLIDERS), mean, atol=0.006)


def test_a_dropped_picture_is_translated_beside_the_original(browser: Browser, url: str, served_runs: Path) -> None:
    show(browser, url, "monet")
    pixels = noise(24, 40, 3)
    drop(browser, ".drop", png(pixels))
    browser.wait("document.querySelector('.wipe .above:not([hidden])')")
    expected = model_of(served_runs / "monet").translate(torch.from_numpy(pixels)[None], "a_to_b")[0].numpy()
    np.testing.assert_array_equal(pixels_on(browser, ".wipe .above"), expected)
    np.testing.assert_array_equal(pixels_on(browser, ".wipe img"), pixels)
    browser.type("label.wide input[type=range]", "\ue010")  # the End key
    clip = browser.evaluate("getComputedStyle(document.querySelector('.wipe .above')).clipPath")
    assert clip == "inset(0px 0px 0px 0%)"
    link = browser.evaluate("(link => [link.hidden, link.download, link.href])(document.querySelector('a[download]'))")
    assert link == [False, "monet.png", browser.evaluate("document.querySelector('.wipe .above').src")]
    browser.click(".choices label:nth-of-type(2)")
    browser.wait("document.querySelector('figcaption').textContent.includes(' s')")
    expected = model_of(served_runs / "monet").translate(torch.from_numpy(pixels)[None], "b_to_a")[0].numpy()
    np.testing.assert_array_equal(pixels_on(browser, ".wipe .above"), expected)


def test_what_the_server_refuses_is_said_in_its_words(browser: Browser, url: str) -> None:
    show(browser, url, "monet")
    drop(browser, ".drop", b"no picture", "notes.txt", "image/png")
    headers = {"Content-Type": "image/png"}
    refused = httpx.post(f"{url}/v1/models/monet/translate", content=b"no picture", headers=headers, trust_env=False)
    browser.wait("document.querySelector('.panel .problem:not([hidden])')")
    assert browser.text(".panel .problem") == refused.json()["detail"]
    drop(browser, ".drop", png(noise(24, 40, 3)))
    browser.wait("document.querySelector('.panel .problem').hidden")


def test_a_server_that_has_too_much_to_do_is_asked_again(browser: Browser, server: tuple[str, Counted]) -> None:
    url, counted = server
    show(browser, url, "digits")
    browser.wait("document.querySelector('.panel figure img').naturalWidth")
    counted.refusals = 1
    browser.type(".panel input[type=range]", "\ue014")
    browser.wait("document.querySelector('.panel .problem').textContent === 'many are waiting'")
    browser.wait("document.querySelector('.panel .problem').hidden")
    browser.wait(f"{PLACE}.querySelector('figcaption').textContent.startsWith('z = (0.01, 0.00)')")


def test_a_film_goes_from_seed_to_seed(browser: Browser, url: str, served_runs: Path) -> None:
    show(browser, url, "digits")
    film = "[...document.querySelectorAll('.panel')].find(panel => panel.ariaLabel === 'From seed to seed')"
    for index, seed in enumerate((3, 4)):
        browser.evaluate(SET.format(f"{film}.querySelectorAll('input[type=number]')[{index}]"), seed)
    model = model_of(served_runs / "digits")
    first, last = (np.repeat(model.sample(1, seed)[0].numpy(), 3, axis=2) for seed in (3, 4))
    for number, expected in ((1, first), (30, last)):
        browser.evaluate(SET.format(f"{film}.querySelector('input[type=range]')"), number)
        until_shown(browser, ".film canvas", expected)


def test_a_film_goes_from_one_given_picture_to_another(browser: Browser, url: str, served_runs: Path) -> None:
    """Of the class that is chosen, by its number: class 2 is no class named 2."""
    show(browser, url, "classes")
    panel = "[...document.querySelectorAll('.panel')].find(panel => panel.ariaLabel === 'From picture to picture')"
    browser.wait(panel)
    browser.evaluate(f"{panel}.id = 'between'")
    assert browser.evaluate("document.querySelector('#between .film').hidden")
    begin, end = noise(16, 16), 255 - noise(16, 16)
    for number, pixels in enumerate((begin, end), 1):
        drop(browser, f"#between .pair > :nth-child({number}) .drop", png(pixels))
    browser.click("#between .choices label:nth-of-type(3)")
    ends = torch.from_numpy(np.stack([begin, end]))[:, :, :, None]
    model = model_of(served_runs / "classes")
    film = model.interpolate(ends, torch.tensor([2, 2]), InterpolationOptions(steps=30)).numpy()
    for number in (1, 30):
        browser.evaluate(SET.format("document.querySelector('#between input[type=range]')"), number)
        until_shown(browser, "#between .film canvas", np.repeat(film[number - 1], 3, axis=2))


def test_attributes_of_a_seed_and_of_a_photo_are_edited(browser: Browser, url: str, edited_runs: Path) -> None:
    directory = locate(edited_runs / "faces" / "model")
    found = load_directions(directory, model_directory.describe(directory))
    model, panel = model_of(edited_runs / "faces"), '.panel[aria-label="Edit a picture"]'
    age, woman = (torch.tensor(found.find(name).vector) for name in ("age", "gender"))

    def drawn(w: torch.Tensor, noise: Noise | None) -> Pixels:
        made: torch.Tensor = model.synthesise(w, noise)
        pixels: Pixels = from_signed(made)[0].numpy()
        return pixels

    show(browser, url, "faces")
    browser.wait(f"document.querySelector('{panel} figure img[src]')")
    browser.evaluate(SET.format(f"document.querySelector('{panel} input[type=number]')"), 3)
    browser.evaluate(SET.format(f"document.querySelector('{panel} input[type=range]')"), -15)
    random = Noise(3, range(1))
    w = model.map_latents(random.normal("z", 8), None)
    until_shown(browser, f"{panel} figure:nth-of-type(2) img", drawn(w, random))
    until_shown(browser, f"{panel} figure:nth-of-type(3) img", drawn(w - age, random))
    reach = "(slider => [slider.min, slider.max])(document.querySelector(given[0]))"
    assert browser.evaluate(reach, f"{panel} input[type=range]") == ["-30", "20"]

    pixels = noise(8, 8, 3)
    drop(browser, f"{panel} .drop", png(np.pad(pixels, ((0, 0), (3, 3), (0, 0)))))  # the middle is taken
    browser.evaluate(SET.format(f"document.querySelector('{panel} input[type=range]')"), 0)
    browser.click(f"{panel} .choices label:nth-of-type(3)")  # woman: 5 nats of 8 at 2 steps
    styles = model_of(edited_runs / "encoder").styles(torch.from_numpy(pixels)[None])
    until_shown(browser, f"{panel} figure:nth-of-type(3) img", drawn(styles + 1.25 * woman, None))
    until_shown(browser, f"{panel} figure:nth-of-type(1) img", pixels)
    assert "gender the same in 82%, 200 pictures" in browser.text(".quality tbody")


VERSION = "document.querySelector('#model > label select')"


def test_a_version_is_chosen_by_its_alias_or_its_digits(browser: Browser, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    made = [store.add("digits", save_vae(tmp_path / f"source{seed}", seed))[0].version for seed in (0, 1)]
    set_alias(store.root, "digits", "prod", made[0])
    set_alias(store.root, "digits", "next", made[1])
    with serving(Path(str(store.root))) as (url, _):
        for reference, number in (("digits", 0), ("digits@next", 1), (f"digits@{made[0]}", 0)):
            show(browser, url, "digits")
            browser.wait(VERSION)
            texts = browser.evaluate(f"[...{VERSION}.options].map(option => option.textContent)")
            assert texts[0] == f"default ({made[0]})"
            assert set(texts[1:]) == {f"prod ({made[0]})", f"next ({made[1]})", *made}
            if reference != "digits":
                change = (
                    f"(select => {{ select.value = given[0]; select.dispatchEvent(new Event('change')) }})({VERSION})"
                )
                browser.evaluate(change, reference)
            browser.wait("document.title === given[0]", f"{reference} · genlab")
            assert made[number] in browser.text("#model > .quiet")
            assert browser.evaluate(f"{VERSION}.value") == reference
            browser.wait(f"{PLACE}.querySelector('figcaption').textContent.includes('z = (0.00, 0.00)')")
            model: Any = model_directory.load(tmp_path / f"source{number}")
            expected = model.decode(torch.tensor([[0.0, 0.0]]))[0].numpy()
            np.testing.assert_array_equal(pixels_on(browser, ".panel figure img"), np.repeat(expected, 3, axis=2))
        browser.open("about:blank")
        browser.open(f"{url}/#digits@none")
        browser.wait("document.getElementById('problem').textContent.includes('no such alias or version')")
        assert browser.evaluate(f"{VERSION}.options.length") == 5, "from where another is chosen"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["digits", "monet", "classes", "faces"])
def test_it_fits_a_phone_in_both_colours_and_every_control_has_a_name(
    browser: Browser, url: str, name: str, dark: bool
) -> None:
    show(browser, url, name, PHONE, dark)
    browser.wait("document.querySelectorAll('.panel').length >= 2")
    assert browser.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    red = int(browser.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]"))
    assert red < 64 if dark else red > 192
    tree = browser.cdp("Accessibility.getFullAXTree")["nodes"]
    names = [node["name"]["value"] for node in tree if not node["ignored"] and node["role"]["value"] in CONTROLS]
    assert len(names) >= 5
    assert all(names), names


def test_the_card_says_how_good_the_pictures_are(browser: Browser, url: str) -> None:
    show(browser, url, "digits")
    browser.wait(SHOWN, "digits")
    rows = browser.text(".quality tbody")
    assert "KID in classifier features" in rows
    assert "0.0625 ± 0.0039" in rows
    assert "5,000 pictures, 10,000 real ones of the split test, extractor classifier, 128" in rows
    assert "5.25 ± 0.25" in rows
    show(browser, url, "monet")
    browser.wait(SHOWN, "monet")
    assert browser.evaluate("document.querySelector('.quality')") is None


def test_a_server_with_tokens_is_told_one(browser: Browser, served_runs: Path, tmp_path: Path) -> None:
    token = add_token(str(tmp_path / "tokens.json"), "alice")
    with serving(served_runs / "digits", access=Access(tokens=str(tmp_path / "tokens.json"))) as (url, _):
        browser.open(url)
        browser.wait("!document.getElementById('sign-in').hidden")
        assert "asks for a token" in browser.text("#problem")
        browser.type("#token", "wrong")
        browser.click("#sign-in button")
        browser.wait("document.getElementById('problem').textContent.includes('not, or no longer, valid')")
        browser.clear("#token")
        browser.type("#token", token)
        browser.click("#sign-in button")
        browser.wait(SHOWN, "digits")
        browser.wait("document.querySelector('figure img').naturalWidth")
        assert browser.evaluate("document.getElementById('sign-in').hidden")
        assert browser.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
