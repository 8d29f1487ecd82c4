"""A page for the tests of the components."""

import pytest
from browser import ROOT, borrowed_page

FOLDER = ROOT / "charlm" / "browser"
SITE = "http://components.test"


@pytest.fixture
def page(module_page):
    """A page that can import the modules of charlm/browser, with the mouse where it points at nothing."""
    module_page.mouse.move(0, 0)
    return module_page


@pytest.fixture(scope="module")
def module_page(context, idle_pages):
    """The page of all tests of a module; no server is asked. Under /charlm/ are the modules of both pages."""

    def answer(route):
        name = route.request.url.removeprefix(f"{SITE}/")
        path = (ROOT if name.startswith("charlm/") else FOLDER) / name
        if path.is_file():
            route.fulfill(body=path.read_bytes(), content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html><title>components</title>", content_type="text/html")

    with borrowed_page(context, idle_pages) as page:
        page.route("**/*", answer)
        page.goto(f"{SITE}/")
        yield page
