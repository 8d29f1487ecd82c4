import pytest
from models import make_lm, make_model, save

from charlm.browser.page import MARK
from charlm.web.training import result
from charlm.web.training.process import DONE, ended_early
from charlm.web.training.result import finish, publish_command


def test_a_model_is_left_as_a_zip_and_as_a_page_that_asks_for_nothing_else(tmp_path):
    save(make_model("gru"), tmp_path / "run")
    left = finish(tmp_path / "run", DONE, "cpu")
    assert left.lm.config.cell == "gru"
    assert (left.package, left.page) == (tmp_path / "my-model.zip", tmp_path / "my-model.html")
    page = left.page.read_text(encoding="utf-8")
    assert MARK in page and "<title>charlm: my-model</title>" in page and "default-src 'none'" in page


def test_a_model_too_large_for_a_page_has_none(tmp_path, monkeypatch):
    save(make_model("gru"), tmp_path / "run")
    monkeypatch.setattr(result, "LARGEST_PAGE_WEIGHTS", 100)
    left = finish(tmp_path / "run", DONE, "cpu")
    assert left.lm is not None and left.package.exists() and left.page is None


def test_without_a_model_the_reason_is_said(tmp_path):
    left = finish(tmp_path / "run", ended_early("stopped"), "cpu")
    assert (left.message, left.lm, left.page) == ("stopped, before its first epoch", None, None)


@pytest.mark.parametrize(
    ("text_name", "repo"),
    [
        ("", "my-text-gru"),
        (None, "my-text-gru"),
        ("names", "names-gru"),
        ("Moby Dick, part 1.txt", "moby-dick-part-1-gru"),
        ("봄.txt", "my-text-gru"),
        ("; rm -rf $(~).txt", "rm-rf-gru"),
        ("a" * 300 + ".txt", "a" * 56 + "-gru"),
    ],
)
def test_the_command_names_a_repository_after_the_text(text_name, repo):
    assert publish_command(text_name, make_lm("gru")) == f"charlm push my-model USER/{repo}"
