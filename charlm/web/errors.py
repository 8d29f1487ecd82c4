"""How whoever asked hears what is wrong with a request."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from inspect import isgeneratorfunction
from typing import Any

import gradio as gr

from charlm.errors import CharLMError

# Of events on the page: what they do is seen where it happens, and they are no part of the API.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def for_page(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler of an event on the page, which shows messages as HTML."""
    return _reporting(handler, escape)


def for_api(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler of the API."""
    return _reporting(handler, str)


def _reporting(handler: Callable[..., Any], shown: Callable[[str], str]) -> Callable[..., Any]:
    """Wrap a handler so that what is wrong with a request is told, and the log has no traceback of it."""

    @contextmanager
    def reported() -> Iterator[None]:
        try:
            yield
        except CharLMError as error:
            raise gr.Error(shown(str(error)), print_exception=False) from None

    @wraps(handler)
    def answer(*args: Any) -> Any:
        with reported():
            return handler(*args)

    @wraps(handler)
    def stream(*args: Any) -> Iterator[Any]:
        with reported():
            yield from handler(*args)

    return stream if isgeneratorfunction(handler) else answer
