"""Components that Gradio lacks: heat texts, curves, lines and cards of plain text, a field for a text file.

Each is a `gr.HTML` with a constant template; a function of static/page.js puts the value on the page as text. The value
is not put into the template, because Gradio evaluates a filled template as JavaScript, `${…}` in the value included.
"""

import json
import os
from collections.abc import Callable, Sequence
from html import escape
from inspect import signature
from pathlib import Path
from typing import Any

import gradio as gr

from charlm.browser.lesson import Lesson
from charlm.browser.scripts import COMPONENTS_STYLE, THEME_STYLE, join_modules
from charlm.errors import CharLMError

STATIC = Path(__file__).parent / "static"
SCRIPT = f"<script>{join_modules(STATIC / 'page.js')}</script>"
# On a Space the address bar is that of the Hub's page around this one.
SPACE_ADDRESS = f"https://huggingface.co/spaces/{escape(os.environ['SPACE_ID'])}" if "SPACE_ID" in os.environ else ""
SPACE = f'<meta name="charlm-space" content="{SPACE_ADDRESS}">'
# In the head, not in Gradio's `css`, which rewrites selectors: it splits `:is(a, b)` at the comma. The components'
# rules stand within one that outranks what Gradio says of every button and heading.
COMPONENTS = f":root .gradio-container {{\n{COMPONENTS_STYLE}}}\n"
OWN_STYLE = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("page.css", "write.css"))
STYLE = f"<style>{THEME_STYLE}{COMPONENTS}{OWN_STYLE}</style>"


def server_function(name: str, handler: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return a function for the `server_functions` of a component, by which its script asks without the queue.

    In js_on_load `await server.name(…)` gives what the handler returns, or {error: a sentence} if it raises a
    CharLMError; undefined if the guard refuses the request. Anyone can call it with anything that JSON has: the handler
    checks each argument, and takes a time and a memory that its arguments bound. The guard bounds the size of a request
    and how many run at a time.
    """
    count = len(signature(handler).parameters)

    def answer(data: Any) -> Any:
        arguments = [data] if count == 1 else data  # Gradio sends a single argument as it is, several as a list
        if not isinstance(arguments, list) or len(arguments) != count:
            return {"error": f"{name} takes {count} arguments."}
        try:
            return handler(*arguments)
        except CharLMError as error:
            message = str(error)
            return {"error": f"{message[:1].upper()}{message[1:]}."}

    answer.__name__ = name
    return answer


def heat_text(label: str, *, paced: bool = False, **kwargs: Any) -> gr.HTML:
    """Return a component for a `Heat`: a text whose characters have background colours.

    paced: the text appears at the pace that the visitor has chosen.
    """
    fixed = json.dumps({"heading": label, "paced": paced})
    script = f"charlm.heatText(element, {fixed}, props, watch)"
    return _component('<div class="heat"></div>', script, value={}, **kwargs)


def written_text(label: str, side: str, functions: Sequence[Callable[[Any], Any]], **kwargs: Any) -> gr.HTML:
    """Return a component for the text that a model writes, paced, with what could stand at its characters.

    side: a or b. functions: `look_at` and `symbols_of` for its script. `select` asks for the rest of a text that was
    cut, with the choices in it, `forced`; `submit` for one character more.
    """
    empty = "“Generate” lets the model continue the prompt."
    fixed = json.dumps({"heading": label, "empty": empty, "paced": True})
    script = f"charlm.writtenText('{side}', element, {fixed}, {{ props, trigger, watch, server }})"
    return _component(
        '<div class="heat"></div>',
        f"{script}; // sends 'select' and 'submit'",
        value={},
        server_functions=functions,
        **kwargs,
    )


def written_line(side: str, **kwargs: Any) -> gr.HTML:
    """Return a component for the line about the text of a side, a or b."""
    return _component("<div></div>", f"charlm.writtenLine('{side}', element, props, watch)", value="", **kwargs)


def choice_panels(**kwargs: Any) -> gr.HTML:
    """Return the panels below the texts: what else could stand at a character, how it was drawn, the branches."""
    template = """<div class="part"><section id="alternatives" aria-label="What else could stand there"></section>
        <section id="drawn" aria-label="How the character was drawn"></section>
        <section id="branches" aria-label="Branches of the texts"></section></div>"""
    return _component(template, "", **kwargs)


def inside_stage(functions: Sequence[Callable[[Any], Any]], **kwargs: Any) -> gr.HTML:
    """Return what *Look inside* shows, see static/inside.js. Its value is what `pack_seen` returns.

    functions: `influence` and `pattern` for its script. A unit that is chosen in a pattern sends `select` with its
    name, `unit`.
    """
    side = """<div class="side {0}"><div id="seen-{0}"><div class="heat"></div></div>
        <div class="progress" id="seen-line-{0}"></div></div>"""
    template = f"""<div class="inside-texts" id="seen">{side.format("a")}{side.format("b")}</div>
        <div class="inside-unit"><div id="cell"></div><div id="pattern"></div></div>"""
    return _component(
        template,
        "charlm.inside(element, props, trigger, watch, server); // sends 'select'",
        value={},
        server_functions=functions,
        elem_classes="inside",
        **kwargs,
    )


def pack_seen(seen: dict[str, Any]) -> dict[str, Any]:
    """Return the value of `inside_stage` for what `answers.inside.Inspector.look` returned.

    It is {run, seen}: the fields that were read, and all of it as JSON. Gradio's client makes a proxy of each list and
    object in a value and copies the whole at each event that it is an input or output of, which takes a browser seconds
    for the tens of thousands in here, and no time for a string.
    """
    return {"run": seen["a"]["heat"]["run"], "seen": json.dumps(seen, ensure_ascii=False)}


def curves(value: dict[str, Any] | None = None, *, reading: str = "", **kwargs: Any) -> gr.HTML:
    """Return a component that draws curves, as `charlm.web.plots` returns them.

    reading: a heading, below which the value's `reading` stands beside the curves, remarks that mark their places on
        them when they are pointed at. The element with the remarks has the id `reading`.
    """
    template = '<div class="curves"></div>'
    if reading:
        template = f"""<div class="plotted">{template}
            <section><h2>{escape(reading)}</h2><div class="reading" id="reading"></div></section></div>"""
    return _component(template, "charlm.curves(element, props, watch)", value=value or {}, **kwargs)


def legend(**kwargs: Any) -> gr.HTML:
    """Return a legend of what the colours of a text stand for: at first those of the surprisal."""
    return _component("<div></div>", "charlm.legend(element.firstElementChild)", value="", **kwargs)


def lines(value: str | Sequence[str] = "", *, role: str = "", **kwargs: Any) -> gr.HTML:
    """Return a component for one line of text, or a list of lines.

    role: status or alert, if a screen reader shall say what comes to stand there.
    """
    template = f'<div role="{role}"></div>' if role else "<div></div>"
    return _component(template, "charlm.lines(element, props, watch)", value=value, **kwargs)


def titled_line(value: dict[str, str], **kwargs: Any) -> gr.HTML:
    """Return a component for a line of text, `{line, title}`; pointing at it shows the title."""
    return _component("<div></div>", "charlm.titledLine(element, props, watch)", value=value, **kwargs)


def cards(value: Sequence[dict[str, str]] = (), **kwargs: Any) -> gr.HTML:
    """Return a component for a list of cards, each `{title, about, text}`."""
    return _component('<div class="cards"></div>', "charlm.cards(element, props, watch)", value=value, **kwargs)


def lesson(lesson: Lesson, names: Sequence[str], **kwargs: Any) -> gr.HTML:
    """Return a component that shows a lesson in a panel of its own, if the page's address asks for it.

    names: of the models that the page serves.
    """
    value = {"lesson": lesson.to_json(), "names": list(names)}
    return _component("<div></div>", "charlm.lesson(props.value)", value=value, **kwargs)


def link_menu(**kwargs: Any) -> gr.HTML:
    """Return the menu with the address of what is shown, and with the code that shows it in another page."""
    return _component("<div></div>", "charlm.linkMenu(element.firstElementChild)", value="", **kwargs)


def samples(**kwargs: Any) -> gr.HTML:
    """Return a component for what a model wrote after its epochs, a list of `{epoch, loss, text}`; one is shown."""
    return _component('<div class="samples"></div>', "charlm.samples(element, props, watch)", value=[], **kwargs)


def progress_line(value: dict[str, Any], *, lost: str, **kwargs: Any) -> gr.HTML:
    """Return a component for the progress of a task: `{state, message, share}`.

    state: a word for the style, such as `running`; a screen reader is told the message when it changes. share: how much
    is done, from 0 to 1, None where that is not known. lost: the message, with the state `failed`, if a task goes on
    and no further values can come: the connection to the server is lost, or its event fails and calls
    `charlm.loseResults`.
    """
    script = f"charlm.progress(element, {json.dumps(lost)}, props, watch)"
    return _component('<div class="state"></div>', script, value=value, **kwargs)


def text_file(label: str, most_bytes: int, drop: str = "", **kwargs: Any) -> gr.HTML:
    """Return a field for a text file; its value is `{name, text}`, and a new file sends `change`.

    The browser reads the file, so that the server takes no uploads. drop: the selector of a field for text, on which a
    file may be dropped, too. What is typed or pasted there sends `input`: a Textbox of Gradio tells of keys alone.
    """
    template = f"""<label class="file-field">{escape(label)} <input type="file" accept="text/*,.txt,.md"></label>
        <div class="file-line hint" role="status"></div>"""
    return _component(
        template,
        f"charlm.textFile(element, props, trigger, {most_bytes}, {json.dumps(drop)}); // sends 'change', 'input'",
        value={},
        **kwargs,
    )


def _component(template: str, script: str, **kwargs: Any) -> gr.HTML:
    """Return a gr.HTML with a constant template and a script. kwargs: its other arguments, such as the value.

    None of them is a prop of our own: an update without a value, such as `gr.skip()`, makes Gradio drop those. So the
    constants that a script needs are written into it.
    """
    return gr.HTML(html_template=template, js_on_load=script, apply_default_css=False, **kwargs)
