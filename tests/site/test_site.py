"""What holds on every page of the book, in a real browser."""

from __future__ import annotations

import functools
import itertools
import re
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import yaml


def test_a_page_opens_without_errors_and_without_other_hosts(page):
    assert page.problems == []
    assert page.outside == []
    assert page.locator("article h1").count() == 1


def test_no_image_is_missing_and_each_has_words(page):
    images = page.eval_on_selector_all(
        "article img", "all => all.map(i => [i.complete && i.naturalWidth > 0, i.alt, i.src.slice(0, 100)])"
    )
    assert [image for image in images if not image[0] or len(image[1]) < 20] == []


def test_formulas_are_typeset(page):
    left = page.eval_on_selector_all(
        "article .math", "all => all.filter(m => !m.querySelector('mjx-container')).map(m => m.textContent)"
    )
    assert left == []
    assert page.locator("mjx-merror").count() == 0


@pytest.fixture(scope="module")
def ids(built):
    """The ids on a page of the site."""
    return functools.cache(lambda file: set(re.findall(r'\bid="([^"]+)"', file.read_text(encoding="utf-8"))))


def test_no_link_inside_the_site_is_broken(page, built, address, ids):
    targets = page.eval_on_selector_all("a[href]", "links => links.map(a => a.getAttribute('href'))")
    # What scripts give an address to on this page need not be in its file.
    here = set(page.eval_on_selector_all("[id]", "all => all.map(e => e.id)"))
    for target in targets:
        place, fragment = urldefrag(urljoin(f"{address}{page.name}.html", target))
        if not place.startswith(address):
            continue
        file = built / unquote(place.removeprefix(address))
        assert file.exists(), target
        if fragment and file.suffix == ".html":
            assert unquote(fragment) in (here if file == built / f"{page.name}.html" else ids(file)), target


def test_a_page_says_which_data_it_was_computed_with(page):
    text = page.locator("article").inner_text()
    assert re.search(r"real, published data|made by this project|simulated data|every dataset present", text)


def test_no_glued_number_is_missing(page):
    assert "{glue" not in page.locator("article").inner_text()
    for text in page.locator("article .pasted-text").all_inner_texts():
        assert re.search(r"\w", text), f"a value in the prose reads {text!r}"
        assert text.strip("+-%") not in ("nan", "None"), f"a value in the prose reads {text!r}"


def test_links_lead_to_the_source_and_to_the_issues(page, root):
    links = page.eval_on_selector_all("a[href]", "links => links.map(a => a.href)")
    repository = yaml.safe_load((root / "_config.yml").read_text())["repository"]["url"]
    (edit,) = {link for link in links if link.startswith(f"{repository}/edit/main/")}
    assert (root / edit.removeprefix(f"{repository}/edit/main/")).is_file()
    assert any(link.startswith(f"{repository}/issues/new") for link in links)


def test_a_notebook_can_be_launched_and_downloaded(page, root):
    links = page.eval_on_selector_all("a[href]", "links => links.map(a => a.href)")
    launched = [link for link in links if re.search(r"colab\.research|mybinder", link)]
    if not (root / f"{page.name}.ipynb").is_file():
        assert launched == []
        return
    for host in ("colab.research.google.com/github/", "mybinder.org/v2/gh/"):
        (link,) = [link for link in launched if host in link]
        assert unquote(link).endswith(f"{page.name}.ipynb")
    assert any(link.endswith(f"_sources/{page.name}.ipynb") for link in links)


def test_headings_go_down_one_level_at_a_time(page):
    levels = page.eval_on_selector_all(
        "article :is(h1, h2, h3, h4, h5, h6)", "all => all.map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    for above, below in itertools.pairwise(levels):
        assert below <= above + 1


def test_figures_have_captions_and_no_box_on_dark_pages(page):
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    found = page.eval_on_selector_all(
        "article figure img",
        "all => all.map(i => [getComputedStyle(i).backgroundColor, !!i.closest('figure').querySelector('figcaption')])",
    )
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    assert [one for one in found if one != ["rgba(0, 0, 0, 0)", True]] == []


def test_a_page_fits_a_phone(page):
    page.set_viewport_size({"width": 360, "height": 800})
    try:
        width = page.evaluate("document.documentElement.scrollWidth")
        wide = page.eval_on_selector_all(
            "article *",
            """all => all.filter(e => e.getBoundingClientRect().right > 361
                 && !e.closest('.scroll, .cell_output, .pst-scrollable-table-container')
                 && !e.closest('pre, .math, mjx-container, figure'))
                 .map(e => e.outerHTML.slice(0, 120))""",
        )
    finally:
        page.set_viewport_size({"width": 1300, "height": 900})
    assert width <= 361
    assert wide == []


def test_what_is_folded_unfolds_and_folds_again(page):
    for kind in ("article .admonition.solution.dropdown", "article details:not(details details)"):
        folded = page.locator(kind)
        for i in range(min(folded.count(), 2)):
            one = folded.nth(i)
            handle = one.locator("summary, .toggle-button").first
            inside = one.locator(":scope > :not(summary):not(.admonition-title)").first
            before = inside.is_visible()
            # By keyboard, as everybody can.
            handle.press("Enter")
            assert inside.is_visible() is not before
            handle.press("Enter")
            assert inside.is_visible() is before


def test_a_chapter_has_something_folded(page):
    if re.fullmatch(r"replications/(\w+)/\1", page.name):
        assert page.locator("article .admonition.solution.dropdown, article details").count() > 0


def test_a_chapter_shows_its_run_at_its_foot(page):
    if not page.name.startswith("replications/"):
        return
    text = page.locator("article").inner_text()
    foot = text[text.rindex("Dataset:") :]
    for word in ("parameters:", "=", "digest:", "run on 20", " s."):
        assert word in foot
