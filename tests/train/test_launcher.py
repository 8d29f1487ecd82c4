import sys

import pytest

from charlm.errors import RequestError
from train.launcher import Launch, is_main_process, mute_other_ranks, read_launch

STARTED = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
STARTED |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_what_torchrun_sets_is_read():
    assert read_launch(STARTED) == Launch(rank=3, world_size=4, local_rank=1, local_world_size=2)


@pytest.mark.parametrize(
    "left",
    [
        {},
        {"RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "abc", "MASTER_PORT": "abc"},
        {"WORLD_SIZE": "", "RANK": "3"},
        {"WORLD_SIZE": "1", "RANK": "abc", "LOCAL_RANK": "7"},
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "PMI_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"},
    ],
    ids=str,
)
def test_what_schedulers_leave_behind_starts_no_process_group(left):
    assert read_launch(left) == Launch(rank=0, world_size=1, local_rank=0, local_world_size=1)


def test_a_launcher_that_starts_one_process_a_machine_may_leave_out_the_local_variables():
    started = {name: value for name, value in STARTED.items() if not name.startswith("LOCAL")}
    assert read_launch(started) == Launch(rank=3, world_size=4, local_rank=0, local_world_size=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("WORLD_SIZE", value) for value in ("abc", "0", "-1", "2.0", "9" * 5000, "²", "2e1")),
        *(("RANK", value) for value in ("", "abc", "4", "-1")),
        *(("LOCAL_RANK", value) for value in ("abc", "2")),
        *(("LOCAL_WORLD_SIZE", value) for value in ("abc", "0", "5")),
        ("MASTER_ADDR", ""),
        *(("MASTER_PORT", value) for value in ("", "abc", "0", "65536")),
    ],
)
def test_anything_else_is_refused_in_one_line_that_names_the_variable_and_the_way_out(name, value):
    with pytest.raises(RequestError, match="start the training with torchrun, or unset WORLD_SIZE") as refused:
        read_launch(STARTED | {name: value})
    assert name in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 250
    del (missing := dict(STARTED))[name]
    if name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        with pytest.raises(RequestError, match=f"WORLD_SIZE is 4, and {name} is not set"):
            read_launch(missing)


def test_a_command_is_not_muted_by_what_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "abc")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with mute_other_ranks():
        sys.stderr.write("said")
    assert capsys.readouterr().err == "said"


def test_only_rank_0_is_the_main_process(monkeypatch):
    assert is_main_process()
    monkeypatch.setenv("RANK", "1")  # left behind: nobody started further processes
    assert is_main_process()
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    for rank, is_main in [("0", True), ("1", False)]:
        monkeypatch.setenv("RANK", rank)
        assert is_main_process() is is_main


def test_other_ranks_print_no_refusal_but_raise_unexpected_exceptions(monkeypatch, capsys):
    def fail(error):
        with mute_other_ranks():
            sys.stderr.write("progress")
            raise error

    started = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", **started}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        fail(RequestError("wrong"))
    assert ended.value.code == RequestError.exit_status
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())
    assert capsys.readouterr() == ("", "")
