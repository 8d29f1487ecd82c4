"""What Gradio does not have: texts whose characters show numbers as colours, lines and cards that are text and nothing
else, a field for a text file.

All are `gr.HTML` with a template that never changes; the functions of static/page.js put the value on the page. A
template with the value in it would not do: Gradio evaluates what results as JavaScript, `${…}` in a value included.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

STATIC = Path(__file__).parent / "static"
SCRIPT = f"<script>{(STATIC / 'page.js').read_text(encoding='utf-8')}</script>"
STYLE = (STATIC / "page.css").read_text(encoding="utf-8")


def heat_text(label: str, *, paced: bool = False, explained: str = "", **kwargs: Any) -> gr.HTML:
    """Return a component for a `Heat`: a text whose every character shows a number as its colour.

    With `paced` it appears at the pace that the visitor has chosen. With `explained`, which stands there at first, a
    character that is pointed at, or reached with the arrow keys, is explained below the text, and one that is clicked,
    or chosen with Enter, sends `select` with its `index`.
    """
    detail = '<div class="heat-detail" role="status" data-hint="{{explained}}"></div>' if explained else ""
    template = f"""<div class="heat"><div class="heat-head"><span class="heat-label">{{{{heading}}}}</span>
        <button type="button" class="heat-copy" aria-label="Copy: {{{{heading}}}}">Copy</button>
        <button type="button" class="heat-save" aria-label="Save: {{{{heading}}}}">Save</button></div>
        <div class="heat-text" tabindex="0" role="textbox" aria-readonly="true" aria-multiline="true"
            aria-label="{{{{heading}}}}"></div>{detail}</div>"""
    return _component(
        template,
        "charlm.heatText(element, props, trigger, watch); // sends 'select'",
        value={},
        heading=label,
        explained=explained,
        paced=paced,
        **kwargs,
    )


def lines(value: str | Sequence[str] = "", **kwargs: Any) -> gr.HTML:
    """Return a component for a line, or a list of them."""
    return _component("<div></div>", "charlm.lines(element, props, watch)", value=value, **kwargs)


def cards(value: Sequence[dict[str, str]] = (), **kwargs: Any) -> gr.HTML:
    """Return a component for a list of `{title, about, text}`."""
    return _component('<div class="cards"></div>', "charlm.cards(element, props, watch)", value=value, **kwargs)


def text_file(label: str, most_bytes: int, **kwargs: Any) -> gr.HTML:
    """Return a field for a text file; its value is `{name, text}`, and a new one sends `change`.

    The browser reads the file, so that there is nothing to upload.
    """
    template = """<label class="file-field">{{heading}} <input type="file" accept="text/*,.txt,.md"></label>
        <div class="file-line hint" role="status"></div>"""
    return _component(
        template,
        f"charlm.textFile(element, props, trigger, {most_bytes}); // sends 'change'",
        value={},
        heading=label,
        **kwargs,
    )


def _component(template: str, script: str, **kwargs: Any) -> gr.HTML:
    return gr.HTML(html_template=template, js_on_load=script, apply_default_css=False, **kwargs)
