"""Gradio writes no stubs when the page starts."""

import importlib.util
import sys
from importlib.machinery import PathFinder

import gradio
import pytest
from gradio import component_meta

from charlm.web.gradio_import import skip_stubs

COMPONENT = "import gradio\n\n\nclass Mine(gradio.HTML):\n    EVENTS = ['click']\n"


@pytest.fixture
def has_stub(tmp_path, monkeypatch):
    """A function that imports a component of one's own and returns whether Gradio wrote a stub beside it."""
    monkeypatch.syspath_prepend(tmp_path)

    def import_component(name):
        path = tmp_path / f"{name}.py"
        path.write_text(COMPONENT)
        importlib.import_module(name)
        del sys.modules[name]
        return path.with_suffix(".pyi").exists()

    return import_component


def test_gradio_would_write_a_stub_for_each_component_but_does_not_here(has_stub, monkeypatch):
    """tests/conftest.py has called `skip_stubs`, as the app does."""
    assert not has_stub("component_without_stub")
    spec = PathFinder.find_spec("component_meta", gradio.__path__)
    original = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(original)
    monkeypatch.setattr(component_meta, "create_or_modify_pyi", original.create_or_modify_pyi)
    assert has_stub("component_with_stub")


def test_once_gradio_is_imported_nothing_is_changed_any_more():
    finders = list(sys.meta_path)
    skip_stubs()
    assert sys.meta_path == finders
