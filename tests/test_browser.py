"""Pages in a real browser, on a phone and on a screen: no error, no request, nothing wider than the window."""

from __future__ import annotations

import io
import lzma
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from playwright.sync_api import Browser, Page, sync_playwright

from train.cli import main
from train.compare.cli import main as compare
from train.curve.cli import main as curve
from train.curve.frames import errors_of, sums_path, write_sums
from train.curve.ledger import Ledger
from train.curve.study import Study, save_study
from train.doctor.cli import main as doctor

DATA = Path(__file__).parents[1] / "data"
WIDTHS = (360, 1400)
PATIENCE = 120_000  # ms; a busy machine is not the page's fault
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium on this machine; install it to test the pages"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as p:
        started = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a short training and the doctor's page, on real data with elements, types and stress."""
    folder = tmp_path_factory.mktemp("pages")
    text = {p: lzma.decompress((DATA / p).read_bytes()).decode() for p in ("acac/train_300K.xyz.xz",
            "acac/test_MD_600K.xyz.xz", "mlearn/Si_train.extxyz.xz")}  # fmt: skip
    molecules, hot, crystals = (read(io.StringIO(t), ":20", format="extxyz") for t in text.values())
    for k, atoms in enumerate(molecules):
        atoms.info["config_type"] = "a long name of the first kind of frames" if k % 2 else "odd"
    for name, frames in (("train", molecules), ("a_test_with_quite_a_long_name", hot), ("si", crystals[::5])):
        write(folder / f"{name}.xyz", frames)
    test = ["--test", str(folder / "a_test_with_quite_a_long_name.xyz")]
    quick = ["--preset", "tiny", "--set", "model.channels=8", "--epochs", "2"]
    for name, more in (("train", test), ("si", [])):
        assert main([str(folder / f"{name}.xyz"), *more, *quick, "--output", str(folder / name)]) == 0
        assert doctor([str(folder / f"{name}.xyz"), *more, "--html", str(folder / f"{name}.html")]) < 2
    return {
        "curves": study(folder / "curves"),
        "comparison": comparison(folder / "compared"),
        "report": folder / "train/report.html",
        "report with stress": folder / "si/report.html",
        "doctor": folder / "train.html",
    }


def study(folder: Path) -> Path:
    """The page of learning curves of three made-up models, one of them with a hostile name."""
    names = ("equivariant", "painn:channels=64:fit.learning_rate=0.002", "<script>alert(1)</script>")
    entry = {"fitter": "network", "parameters": 1000, "step_seconds": 0.01, "asked": {}}
    models = dict.fromkeys(names, entry)
    fixed = {
        "tests": ["300K", "600K"],
        "protocol": "equal-time",
        "budget": 60.0,
        "pool": 500,
        "match": "none",
    }
    fixed |= {
        "reference": names[0],
        "files": {"pool": [["a & b.xyz", ""]]},
        "settings": {"fit": {"batch_size": 5}},
    }
    made = Study(folder, (25, 50, 100, 200, 400), 3, 2, models, fixed, {"why": [], "machine": "1 core"})
    folder.mkdir()
    save_study(made)
    ledger, rng = Ledger(folder), np.random.default_rng(0)
    for job in made.jobs:
        level = (300 + 200 * names.index(job.model)) * job.size**-0.6 * np.exp(0.1 * rng.normal())
        square = (level * rng.gamma(4.0, 0.25, size=(2, 20))) ** 2
        sums = {
            f"{q}/{p}": 3 * square[k] ** (p / 2) for k, q in enumerate(("energy", "forces")) for p in (1, 2)
        }
        sums |= {f"{q}/n": np.full(20, 3.0) for q in ("energy", "forces")}
        tests = {"300K": sums, "600K": sums}
        write_sums(sums_path(made, job), tests)
        line = {
            "errors": {t: errors_of(s) for t, s in tests.items()},
            "steps": 100,
            "ended": "budget",
            "wall": 1.0,
        }
        facts = {"cpu_seconds": float(job.size), "us_per_atom": 50.0 + job.size, "host": "here", "threads": 1}
        ledger.finish(job, {k: getattr(job, k) for k in ("model", "size", "draw", "seed")} | line | facts)
    assert curve(["--report", "--output", str(folder), "--reach", "30"]) == 0
    return folder / "report.html"


def comparison(folder: Path) -> Path:
    """The page of a comparison on copper: a hostile name, a long one, and one that fails everywhere."""
    folder.mkdir()
    for k in range(4):
        atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
        atoms.rattle(0.1, seed=k)
        atoms.info["config_type"] = "a long name of the first kind of frames" if k % 2 else "odd"
        atoms.calc = EMT()
        labels = {name: atoms.calc.get_property(name, atoms) for name in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        write(folder / "test.xyz", atoms, append=True)
    arguments = [
        str(folder / "test.xyz"),
        "--rounds",
        "3",
        "--seconds",
        "1",
        "--steps",
        "100",
        "--output",
        str(folder),
    ]
    long = "a_morse_potential_with_quite_a_long_name"
    modules = {"<script>alert(1)</script>": "emt:EMT", long: "morse:MorsePotential", "lost": "tip3p:TIP3P"}
    for name, module in modules.items():
        arguments += ["--calculator", f"{name}=ase.calculators.{module}"]
    for option in ("epsilon=0.35", "rho0=4.0", "r0=2.6"):
        arguments += ["--option", f"{long}.{option}"]
    assert compare(arguments) == 1
    return folder / "report.html"


def look(browser: Browser, path: Path, width: int) -> tuple[list[str], Page]:
    """Open a page, draw all of it, unfold everything; what is wrong with it."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"uncaught: {error}"))
    page.on(
        "request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url)
    )
    page.goto(path.as_uri())
    for place in page.query_selector_all(".plot, .view"):
        place.scroll_into_view_if_needed()
        page.wait_for_function("place => place.querySelector('.main-svg')", arg=place)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    page.wait_for_timeout(300)
    wide = page.evaluate("document.documentElement.scrollWidth")
    if wide > width:
        wrong.append(f"{wide} pixels wide in a window of {width}")
    return wrong, page


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["report", "report with stress", "doctor", "curves", "comparison"])
def test_page_opens_without_errors_and_fits(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    wrong, page = look(browser, pages[name], width)
    assert not wrong
    assert page.locator("h1").is_visible()
    assert page.locator(".plot").count() >= 5
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.plot')].flatMap((plot) => {
            const frame = plot.getBoundingClientRect();
            return [...plot.querySelectorAll('.xtitle, .ytitle, .legendtext')].filter((text) => {
                const box = text.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 1
                    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
            }).map((text) => text.textContent);
        })"""
    )
    assert cut == [], "titles that are cut off"
    page.close()


def test_another_frame_can_be_chosen_and_hovered(browser: Browser, pages: dict[str, Path]) -> None:
    wrong, page = look(browser, pages["report"], 1400)
    title = "() => document.getElementById('view').data.flatMap((trace) => trace.text ?? []).join()"
    before = page.evaluate(title)
    choice = page.locator("#view-choice")
    assert choice.locator("option").count() >= 5
    choice.select_option("1")
    page.wait_for_function(f"before => ({title})() !== before", arg=before)
    plot = page.locator("#parity-1")
    plot.scroll_into_view_if_needed()
    points = page.evaluate("() => Plotly.Fx.hover('parity-1', [{curveNumber: 2, pointNumber: 7}])")
    assert points is None
    page.wait_for_function("() => document.querySelector('#parity-1 .hovertext')")
    said = plot.locator(".hovertext").first.text_content() or ""
    assert "frame" in said
    assert "atom" in said
    assert not wrong
    page.close()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>nothing.at.all()</script>", "uncaught: "),
        ("<script>console.error('wrong')</script>", "console: wrong"),
        ("<div style='width:2000px'>wide</div>", "2000 pixels wide"),
        ("<img src='http://localhost:1/a.png'>", "http://localhost:1/a.png"),
    ],
)
def test_what_is_wrong_is_seen(browser: Browser, tmp_path: Path, body: str, complaint: str) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><body style='margin:0'>{body}</body>")
    wrong, page = look(browser, tmp_path / "page.html", 360)
    assert any(complaint in one for one in wrong), wrong
    page.close()
