"""Gradio's theme in the look of the page without a server: its variables get those of browser/components/theme.css.

What no variable reaches, static/page.css changes, in one place.
"""

from inspect import signature

import gradio as gr
from gradio.themes.utils.colors import stone
from gradio.themes.utils.sizes import Size

TEXT_SIZES = Size("10px", "12px", "13px", "13px", "15px", "20px", "20px", name="charlm")
SPACING = Size("1px", "2px", "4px", "6px", "8px", "10px", "12px", name="charlm")
RADIUS = Size("2px", "3px", "5px", "5px", "8px", "8px", "8px", name="charlm")
FONTS = "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"
MONO = "ui-monospace", "SF Mono", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"

# Gradio's names, in groups with one value each. The values change with light and dark by themselves.
VALUES = {
    "var(--ink)": """body_text_color color_accent slider_color loader_color block_title_text_color
        input_border_color_focus block_label_text_color button_secondary_text_color button_secondary_text_color_hover
        link_text_color link_text_color_active link_text_color_hover link_text_color_visited accordion_text_color
        table_text_color""",
    "var(--ink-soft)": """body_text_color_subdued block_info_text_color input_placeholder_color
        button_secondary_border_color_hover""",
    "var(--paper)": "body_background_fill",
    "var(--surface)": """background_fill_primary input_background_fill input_background_fill_focus
        input_background_fill_hover table_even_background_fill table_odd_background_fill""",
    "var(--raised)": "button_secondary_background_fill button_secondary_background_fill_hover",
    "var(--track)": """background_fill_secondary code_background_fill color_accent_soft table_row_focus
        stat_background_fill""",
    "var(--line)": """border_color_primary border_color_accent border_color_accent_subdued input_border_color
        input_border_color_hover button_secondary_border_color table_border_color block_border_color""",
    "var(--accent)": """button_primary_background_fill button_primary_background_fill_hover button_primary_border_color
        button_primary_border_color_hover""",
    "var(--on-accent)": "button_primary_text_color button_primary_text_color_hover",
    "transparent": """block_background_fill checkbox_label_background_fill checkbox_label_background_fill_hover
        checkbox_label_background_fill_selected block_label_background_fill panel_background_fill""",
    "none": """input_shadow input_shadow_focus block_shadow checkbox_shadow checkbox_label_shadow shadow_inset
        button_primary_shadow button_secondary_shadow""",
    "0": """block_title_padding block_border_width block_padding block_radius block_label_border_width
        checkbox_label_border_width""",
    "1px": "button_border_width input_border_width",
    "550": """block_title_text_weight button_large_text_weight button_medium_text_weight button_small_text_weight""",
    "4px 8px": "input_padding",
    "7px 12px": "button_medium_padding button_large_padding",
    "2px 8px": "button_small_padding",
    "2px 8px 2px 0": "checkbox_label_padding",
    "0 8px": "checkbox_label_gap",
    "12px": "layout_gap form_gap_width button_small_text_size",
}


def make_theme() -> gr.themes.Base:
    """Return the theme of the page, the same for light and dark, since its values are variables that differ there."""
    theme = gr.themes.Base(
        primary_hue=stone,
        secondary_hue=stone,
        neutral_hue=stone,
        text_size=TEXT_SIZES,
        spacing_size=SPACING,
        radius_size=RADIUS,
        font=FONTS,
        font_mono=MONO,
    )
    values = {name: value for value, names in VALUES.items() for name in names.split()}
    in_the_dark = signature(theme.set).parameters
    values |= {dark: value for name, value in values.items() if (dark := f"{name}_dark") in in_the_dark}
    return theme.set(**values)
