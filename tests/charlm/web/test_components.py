"""The components of the page that Gradio lacks."""

import gradio as gr
import pytest
from gradio.blocks import postprocess_update_dict
from loops import run_async
from models import make_lm

from charlm.web.models import ModelRegistry, ServedModel
from charlm.web.page import build_page


@pytest.mark.slow
def test_no_component_has_props_since_gradio_removes_them_at_an_update_without_a_value():
    """The last line asserts what Gradio does: when it fails, the constants in the scripts may become props again."""

    async def build():
        return build_page(ModelRegistry([ServedModel("tiny", make_lm(), "folder")]), "cpu")

    page = run_async(build())
    components = [each for each in page.blocks.values() if isinstance(each, gr.HTML)]
    assert len(components) > 20
    assert [each.elem_id for each in components if each.props] == []
    assert postprocess_update_dict(gr.HTML(heading="here"), gr.skip())["props"] == {"__type__": "update"}
