import json
import os
from types import SimpleNamespace

import pytest

from charlm.errors import RequestError, TrainingError
from charlm.web.training.process import CONTROL_FILE, DONE, MOST_RATES, ChildProcess, ControlWriter
from train import control, events
from train.report import failed_event


def test_what_a_visitor_asks_for_is_what_the_training_reads(tmp_path):
    assert CONTROL_FILE == events.CONTROL_FILE and MOST_RATES <= control.MOST_RATES
    writer, reader = ControlWriter(), control.ControlFile(tmp_path / CONTROL_FILE)
    assert not writer.has_begun
    with writer.writing_into(tmp_path):
        assert writer.has_begun and reader.read(pytest.fail) == control.ControlRequest()
        writer.set_learning_rate(0.001)
        writer.pause(True)
        assert reader.read(pytest.fail) == control.ControlRequest(True, (0.001,)) and writer.is_paused
        writer.set_learning_rate(0.5)
        writer.pause(False)
        assert reader.read(pytest.fail) == control.ControlRequest(False, (0.001, 0.5)) and not writer.is_paused
        assert [path.name for path in tmp_path.iterdir()] == [CONTROL_FILE]  # nothing half written stays
    writer.pause(True)
    assert not json.loads((tmp_path / CONTROL_FILE).read_bytes())["paused"] and not writer.has_begun


def test_learning_rates_are_taken_until_there_are_as_many_as_are_recorded(tmp_path):
    writer = ControlWriter()
    with writer.writing_into(tmp_path):
        for _ in range(MOST_RATES):
            writer.set_learning_rate(0.1)
        with pytest.raises(RequestError) as refused:
            writer.set_learning_rate(0.1)
    assert str(refused.value) == "this training was given 50 learning rates: it takes no more"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    writer = ControlWriter()
    with writer.writing_into(tmp_path / "gone"), pytest.raises(RequestError) as refused:
        writer.pause(True)
    assert not writer.is_paused
    assert str(refused.value) == f"this server cannot write to the training ({os.strerror(2)}): tell its owner"


NOTE = "note: 21,600 characters are few for 400,000 parameters"


@pytest.mark.parametrize(
    ("status", "event", "said", "problem"),
    [
        (2, RequestError("my-text has one symbol; give two"), "error: x", "my-text has one symbol; give two"),
        (
            1,
            TrainingError("the loss is no longer a number (epoch 4, step 9)", "give a lower --lr", "diverged"),
            "error: x",
            "the loss is no longer a number (epoch 4, step 9); choose a smaller size or a lower learning rate",
        ),
        (
            1,
            TrainingError("cannot write to run (No space left on device)", "make room", "disk"),
            "error: x",
            "cannot write to run (No space left on device); tell the owner of this server",
        ),
        (1, None, "error: out of memory; close other programs", "out of memory; close other programs"),
        (-9, None, NOTE, "its process was killed, perhaps for lack of memory; choose a smaller size"),
        (1, None, NOTE, "its process ended with status 1; tell the owner of this server"),
    ],
)
def test_a_process_that_failed_is_told_by_its_event_else_by_its_error_or_its_status(
    tmp_path, status, event, said, problem
):
    errors, taken = tmp_path / "errors.txt", []
    errors.write_text(f"{NOTE}\n{said}\n", encoding="utf-8")
    sent = [{"event": "edit"}, *([failed_event(event)] if event else [])]
    process = SimpleNamespace(returncode=status, stdout=[json.dumps(each) for each in sent])
    ending = ChildProcess(process, errors, taken.append).ending()
    assert taken == sent
    assert ending.with_model == ending.without_model == f"the training failed: {problem}"
    assert ending.has_failed
    assert ChildProcess(SimpleNamespace(returncode=0, stdout=[]), errors, taken.append).ending() == DONE
