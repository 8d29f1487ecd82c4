"""Turns a CharLMError into the reply of the page or of the API."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from inspect import isgeneratorfunction
from typing import Any

import gradio as gr

from charlm.errors import CharLMError

# For events of the page: no spinner over components that show their progress themselves, and no place in the API. Even
# where it shows none, Gradio's client tells the progress of each event, at each of its values, to all components that
# any event before it had as outputs, and copies their values for that; so here it is shown on no component.
#
# Without preprocessing the handlers get values as the browser sent them, and `charlm.web.answers` checks each. Gradio
# would compare them with the choices and bounds that the session has been sent, but it keeps those of a limited number
# of sessions: of a visitor whom it has forgotten it would refuse a model of their own.
QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "show_progress_on": [],
    "api_visibility": "private",
    "preprocess": False,
}


def for_page(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler of a page event; the message is escaped, since the page shows messages as HTML."""
    return _with_messages(handler, escape)


def for_api(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler of an API endpoint."""
    return _with_messages(handler, str)


def _with_messages(handler: Callable[..., Any], encode: Callable[[str], str]) -> Callable[..., Any]:
    """Wrap a handler, a function or a generator, so that its CharLMErrors reach the visitor and not the log."""

    @contextmanager
    def translated() -> Iterator[None]:
        try:
            yield
        except CharLMError as error:
            raise gr.Error(encode(str(error)), print_exception=False) from None

    @wraps(handler)
    def answer(*args: Any) -> Any:
        with translated():
            return handler(*args)

    @wraps(handler)
    def stream(*args: Any) -> Iterator[Any]:
        with translated():
            yield from handler(*args)

    return stream if isgeneratorfunction(handler) else answer
