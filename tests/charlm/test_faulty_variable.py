"""Variables that libraries refuse, on libraries made for the test and on those that we use."""

import importlib
import sys

import pytest
import torch
from huggingface_hub import constants

from charlm import cli
from charlm.faulty_variable import explain_by_environment

LIBRARIES = {
    "a number on one line": 'import os\nSECONDS = int(os.environ.get("PICKY_SECONDS", "3"))\n',
    "a number on several lines": 'import os\nSECONDS = float(\n    os.environ.get(\n        "PICKY_SECONDS", "3")\n)\n',
    "a function that converts": (
        "import os\ndef _number(text):\n    text = text or 3\n    text = str(text)\n    del os\n    return int(text)\n"
        'SECONDS = _number(os.getenv("PICKY_SECONDS"))\n'
    ).replace("    del os\n", ""),
    "a choice": (
        'import os\nNAME = "PICKY_SECONDS"\nvalue = os.environ.get(NAME, "on")\n\n\n\n'
        "if value not in ('on', 'off'):\n    raise RuntimeError(f'{value} is neither on nor off')\n"
    ),
    "a message that names it": (
        'import os\nNAME = "PICKY_" + "SECONDS"\nvalue = os.environ.get(NAME, "on")\n\n\n\n'
        "if value not in ('on', 'off'):\n    raise RuntimeError(f'{NAME} must be on or off')\n"
    ),
}

ANOTHER_REASON = 'import os\nvalue = os.environ["PICKY_SECONDS"]\n\n\n\n\n1 / 0\n'


@pytest.fixture
def import_library(tmp_path, monkeypatch):
    def run(source):
        (tmp_path / "picky_library.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        sys.modules.pop("picky_library", None)
        importlib.invalidate_caches()
        import picky_library  # noqa: F401  # as libraries do: with no frame of importlib in the traceback

    return run


@pytest.mark.parametrize("source", LIBRARIES.values(), ids=LIBRARIES)
def test_a_variable_that_a_library_refuses_is_named_in_one_line(import_library, monkeypatch, capsys, source):
    monkeypatch.setenv("PICKY_SECONDS", "nonsense")
    assert cli.run(lambda: import_library(source)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: a library cannot use the environment variable PICKY_SECONDS (")
    assert said.endswith("); unset it or give it another value\n") and said.count("\n") == 1
    monkeypatch.delenv("PICKY_SECONDS")
    assert cli.run(lambda: import_library(source)) == 0


def test_a_secret_is_not_quoted(import_library, monkeypatch, capsys):
    monkeypatch.setenv("PICKY_TOKEN", "hf_secret")
    assert cli.run(lambda: import_library('import os\nint(os.environ["PICKY_TOKEN"])\n')) == 2
    assert "PICKY_TOKEN (ValueError)" in (said := capsys.readouterr().err) and "hf_secret" not in said


@pytest.fixture
def _picky(monkeypatch):
    monkeypatch.setenv("PICKY_SECONDS", "nonsense")


@pytest.mark.usefixtures("_picky")
def test_an_error_for_another_reason_is_not_blamed_on_the_environment(import_library):
    with pytest.raises(ZeroDivisionError) as failed:
        cli.run(lambda: import_library(ANOTHER_REASON))
    assert explain_by_environment(failed.value) is None


@pytest.mark.parametrize("name", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
def test_a_time_limit_of_the_hubs_client_that_is_no_number_is_named(monkeypatch, capsys, name):
    with monkeypatch.context() as changed:
        changed.setenv(name, "abc")
        assert cli.run(lambda: importlib.reload(constants)) == 2
    assert f"variable {name} (invalid literal for int() with base 10: 'abc')" in capsys.readouterr().err
    importlib.reload(constants)


@pytest.mark.parametrize("address", ["http://[", "http://[::1"])
def test_an_address_of_the_hub_that_cannot_be_one_is_named(monkeypatch, capsys, address):
    with monkeypatch.context() as changed:
        changed.setenv("HF_ENDPOINT", address)
        assert cli.run(lambda: importlib.reload(constants)) == 2
    assert "environment variable HF_ENDPOINT (" in capsys.readouterr().err
    importlib.reload(constants)


def test_a_setting_of_torch_that_it_does_not_know_is_named(monkeypatch, capsys):
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "nonsense")
    assert cli.run(torch.distributed.set_debug_level_from_env) == 2
    assert "variable TORCH_DISTRIBUTED_DEBUG (The value of TORCH_DISTRIBUTED_DEBUG must be" in capsys.readouterr().err
