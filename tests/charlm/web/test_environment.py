"""Which variables of the environment reach Gradio."""

import os
import subprocess
import sys

import pytest
from browser import ROOT

from charlm.errors import RequestError
from charlm.web.environment import prepare


def test_of_gradios_variables_only_those_that_the_page_obeys_are_left(tmp_path):
    environment = {
        "PATH": "/bin",
        "GRADIO_SSR_MODE": "True",
        "GRADIO_NUM_WORKERS": "2",
        "GRADIO_ANALYTICS_ENABLED": "True",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": "7861",
        "GRADIO_ROOT_PATH": "/demo",
        "GRADIO_TEMP_DIR": str(tmp_path / "new"),
        "OMP_NUM_THREADS": "4",
    }
    prepare(environment)
    assert environment == {
        "PATH": "/bin",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SERVER_PORT": "7861",
        "GRADIO_ROOT_PATH": "/demo",
        "GRADIO_TEMP_DIR": str(tmp_path / "new"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "OMP_NUM_THREADS": "4",
        "OPENBLAS_NUM_THREADS": "1",
    }


def test_an_empty_variable_is_as_good_as_none():
    environment = {"GRADIO_SERVER_NAME": "", "GRADIO_SERVER_PORT": "", "GRADIO_ROOT_PATH": ""}
    prepare(environment)
    assert not {"GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH"} & environment.keys()


def test_the_page_has_a_temporary_folder_of_its_own_which_goes_with_the_process():
    code = "from charlm.web.environment import prepare; e = {}; prepare(e); print(e['GRADIO_TEMP_DIR'], end='')\n"
    code += "import os; assert os.stat(e['GRADIO_TEMP_DIR']).st_mode & 0o777 == 0o700"
    folder = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert os.path.basename(folder).startswith("charlm-") and not os.path.exists(folder)


def test_a_temporary_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(RequestError, match="GRADIO_TEMP_DIR is .*file.*; name another folder or unset it"):
            prepare({"GRADIO_TEMP_DIR": str(folder)})


def test_without_a_folder_for_temporary_files_the_user_is_told(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(RequestError, match="set TMPDIR to one that can be written"):
        prepare({})
