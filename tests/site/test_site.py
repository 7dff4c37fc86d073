"""The built site, in a real browser."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
from urllib.parse import urldefrag, urljoin

import pytest
import yaml

from routebook import ledger

# sphinx-thebe, which Jupyter Book always loads, declares its constants twice; nothing on these pages uses it.
UPSTREAM = "Identifier 'THEBE_JS_URL' has already been declared"
PLAYWRIGHT_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(built):
    handler = functools.partial(_Quiet, directory=str(built))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium to look at the site (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=PLAYWRIGHT_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(root):
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(page["file"] for c in chapters for page in (c, *c.get("sections", ())))]


@pytest.fixture(scope="module")
def visit(browser, address):
    """Return a page of the site, opened once for each width and theme.

    Whatever it asks of other hosts is refused and noted.
    """
    opened = {}

    def route(page, request):
        if request.request.url.startswith((address, "data:")):
            request.continue_()
        else:
            page.outside.append(request.request.url)
            request.abort()

    def open_page(name, width=1300, theme="light"):
        if (name, width, theme) not in opened:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
            opened[name, width, theme] = page
            page.problems, page.outside = [], []
            page.route("**/*", functools.partial(route, page))
            page.on("pageerror", lambda error: None if UPSTREAM in str(error) else page.problems.append(str(error)))
            page.on("response", lambda r: page.problems.append(f"{r.status} {r.url}") if r.status >= 400 else None)
            page.goto(f"{address}{name}.html", wait_until="load")
        return opened[name, width, theme]

    return open_page


def test_every_page_opens_without_errors_and_without_other_hosts(visit, pages):
    for name in pages:
        page = visit(name)
        assert page.problems == [], name
        assert page.outside == [], name
        assert page.locator("article h1").count() == 1, name


def test_no_link_inside_the_site_is_broken(visit, pages, built):
    for name in pages:
        page = visit(name)
        here = page.url
        targets = page.eval_on_selector_all("a[href]", "links => links.map(a => a.getAttribute('href'))")
        for target in targets:
            place, fragment = urldefrag(urljoin(here, target))
            if not place.startswith(here.rpartition(name)[0]):
                continue
            file = built / place.removeprefix(here.rpartition(name)[0])
            assert file.exists(), f"{name} links to {target}"
            if fragment and file.suffix == ".html":
                assert f'id="{fragment}"' in file.read_text(encoding="utf-8"), f"{name} links to {target}"


def test_every_page_says_which_data_it_was_computed_with(visit, pages):
    for name in pages:
        text = visit(name).locator("article").inner_text()
        assert re.search(r"real, published data|made by this project|simulated data|every dataset present", text), name


def test_a_chapter_shows_its_run_at_its_foot(visit):
    text = visit("replications/uniroute/uniroute").locator("article").inner_text()
    foot = text[text.rindex("Dataset:") :]
    for word in ("parameters:", "n_trials=", "digest:", "run on 20", " s."):
        assert word in foot


def test_no_glued_number_is_missing(visit, pages):
    for name in pages:
        page = visit(name)
        assert "{glue" not in page.locator("article").inner_text()
        for text in page.locator("article .pasted-text").all_inner_texts():
            assert re.search(r"\w", text), f"{name}: a value in the prose reads {text!r}"
            assert text.strip("+-%") not in ("nan", "None"), f"{name}: a value in the prose reads {text!r}"


def test_formulas_are_rendered(visit):
    page = visit("replications/uniroute/uniroute")
    page.wait_for_selector("mjx-container", timeout=15_000)
    assert page.locator("mjx-container").count() > 10
    assert page.locator("mjx-merror").count() == 0


def test_launch_buttons_and_download_point_at_the_notebook(visit, pages, root):
    notebooks = [name for name in pages if (root / f"{name}.ipynb").is_file()]
    assert notebooks
    for name in notebooks:
        page = visit(name)
        links = page.eval_on_selector_all("a[href]", "links => links.map(a => a.href)")
        for host in ("colab.research.google.com", "mybinder.org"):
            (link,) = [link for link in links if host in link]
            assert f"{name}.ipynb" in link.replace("%2F", "/")
        assert any(link.endswith(f"_sources/{name}.ipynb") for link in links)


def test_figures_have_alt_text_and_captions_and_no_box_on_dark_pages(visit, pages, root):
    for name in (name for name in pages if (root / f"{name}.ipynb").is_file()):
        page = visit(name, theme="dark")
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        images = page.locator("article figure img")
        assert images.count() > 0, name
        for i in range(images.count()):
            image = images.nth(i)
            assert len(image.get_attribute("alt")) > 20, name
            assert image.evaluate("i => i.complete && i.naturalWidth > 0"), name
            assert image.evaluate("i => getComputedStyle(i).backgroundColor") == "rgba(0, 0, 0, 0)", name
        captions = page.locator("article figure figcaption")
        assert captions.count() == images.count(), name


def test_the_scorecard_lists_every_claim_with_a_verdict(visit, root):
    page = visit("book/scorecard")
    claims = [claim for found in ledger.discover(root) for _, claim in found.claims]
    rows = page.locator("tr[id^='claim-']")
    assert rows.count() == len(claims)
    for claim in claims:
        verdict = page.locator(f"#claim-{claim.id} .verdict")
        assert verdict.inner_text() in ledger.VERDICTS


def test_the_intro_counts_what_the_scorecard_lists(visit):
    board = visit("book/intro").locator("article table").first
    rows = [row.locator("td").all_inner_texts() for row in board.locator("tbody tr").all()]
    # The last column is that of all papers.
    counts = {row[0]: int(row[-1]) for row in rows}
    scorecard = visit("book/scorecard")
    for verdict in ledger.VERDICTS:
        listed = scorecard.locator(f"tr[id^='claim-'] .verdict-{verdict}").count()
        assert counts.get(verdict, 0) == listed, verdict


def test_pages_fit_a_phone(visit, pages):
    for name in pages:
        page = visit(name, width=420)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), name


def test_the_search_finds_the_method(visit):
    page = visit("search")
    page.goto(page.url + "?q=LearnedMap")
    page.wait_for_selector("ul.search li", timeout=15_000)
    assert "UniRoute" in page.locator("ul.search").inner_text()
