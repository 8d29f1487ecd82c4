import argparse

import pytest

from charlm import cli
from charlm.errors import RequestError
from charlm.web.launch import add_arguments, launch, models_to_show, read_root_path


@pytest.fixture
def parse(monkeypatch):
    """Reads a command line with the options of the page."""
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH", "CHARLM_MODELS"):
        monkeypatch.delenv(name, raising=False)

    def read(*arguments) -> argparse.Namespace:
        parser = cli.Parser(prog="page")
        add_arguments(parser)
        return parser.parse_args(arguments)

    return read


def test_without_options_the_page_is_for_this_machine_alone(parse):
    assert vars(parse()) == {
        "model": None,
        "host": "127.0.0.1",
        "port": 7860,
        "device": "auto",
        "root_path": "",
        "share": False,
    }


def test_a_space_sets_the_defaults_in_the_environment_and_an_empty_variable_is_none(parse, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7861")
    monkeypatch.setenv("GRADIO_ROOT_PATH", "")
    args = parse()
    assert (args.host, args.port, args.root_path) == ("0.0.0.0", 7861, "")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "")
    assert parse("--host", "127.0.0.2").port == 7860


def test_options_come_before_the_environment_and_nothing_stands_for_the_bundled_models(parse, monkeypatch):
    assert models_to_show(parse()) == []
    monkeypatch.setenv("CHARLM_MODELS", " ada/one, ,weights/two,")
    assert models_to_show(parse()) == ["ada/one", "weights/two"]
    assert models_to_show(parse("--model", "ada/three", "--model", "ada/four")) == ["ada/three", "ada/four"]


@pytest.mark.parametrize(
    ("text", "root_path"),
    [
        ("", ""),
        ("/", ""),
        ("/demo", "/demo"),
        ("/demo/", "/demo"),
        ("demo", "/demo"),
        (" /a/demo ", "/a/demo"),
        ("https://example.com/demo/", "https://example.com/demo"),
        ("https://example.com", "https://example.com"),
    ],
)
def test_a_root_path_is_a_path_or_an_address(text, root_path):
    assert read_root_path(text) == root_path


@pytest.mark.parametrize("text", ["/a b", "https://", "/demo?x=1", "/demo#x", "//host/demo", "ftp://host/demo", "/ä"])
def test_any_other_root_path_is_refused(text):
    with pytest.raises(RequestError, match="give a path such as /demo"):
        read_root_path(text)


def test_a_wrong_root_path_is_refused_before_a_model_is_read(parse, monkeypatch):
    read = []
    monkeypatch.setattr("charlm.web.models.load_registry", lambda *_, **__: read.append("a model"))
    with pytest.raises(RequestError, match="give a path such as /demo"):
        launch(["ada/model"], parse("--root-path", "/a b"))
    assert not read
