import pytest
from models import make_lm

from charlm.errors import RequestError
from charlm.web.models import ServedModel
from charlm.web.training import settings
from charlm.web.training.settings import (
    DEFAULT_MINUTES,
    PRESETS,
    TIMED,
    fit_arguments,
    fit_settings,
    gpu_settings,
    start_folder,
    start_settings,
)


def test_a_long_text_is_read_fewer_times_and_one_too_long_for_the_model_is_refused(monkeypatch):
    poems = ServedModel("ada/poems@v1", make_lm("gru"), "hub")
    parameters = poems.lm.config.parameters
    monkeypatch.setattr(settings, "START_WORK", 10_000 * parameters)
    epochs = [start_settings(length, poems)[0]["epochs"] for length in (1_000, 2_000, 3_000, 10_000)]
    assert epochs == [5, 5, 3, 1]
    with pytest.raises(RequestError) as caught:
        start_settings(10_001, poems)
    assert str(caught.value) == (
        f"this text is too long to go on from ada/poems@v1 here, a model of {parameters:,} parameters: "
        "give at most 10,000 characters, or start from random weights"
    )


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("shakespeare-lstm", "./start/shakespeare-lstm"),
        ("ada/poems@v1", "./start/poems"),
        ("../..", "./start/model"),
        ("a b\n$x", "./start/a-b--x"),
        ("봄", "./start/봄"),
    ],
)
def test_a_model_to_start_from_has_a_folder_within_that_of_the_training(name, folder):
    assert start_folder(ServedModel(name, make_lm(), "folder")) == folder


def test_short_texts_are_read_often_and_long_ones_at_least_some_times():

    def epochs(length):
        arguments = fit_arguments(fit_settings(length, "lstm", "small"))
        return int(arguments[arguments.index("--epochs") + 1])

    assert [epochs(length) for length in (1_000, 100_000, 1_000_000)] == [24, 24, 3]


def test_the_size_for_a_time_is_left_to_the_command_but_for_the_cell_and_the_minutes():
    chosen = fit_settings(50_000, "gru", TIMED, 3, 5)
    assert fit_arguments(chosen) == ["--cell", "gru", "--minutes", "3.0", "--device", "cpu"]
    assert fit_settings(50_000, "gru", TIMED)["minutes"] == DEFAULT_MINUTES
    assert fit_settings(50_000, "gru", "small", "many", 5) == fit_settings(50_000, "gru", "small")


@pytest.mark.parametrize("minutes", [0.5, 5.5, float("nan"), "2", None])
def test_minutes_beyond_those_of_the_queue_are_refused(minutes):
    with pytest.raises(RequestError, match="^the number of minutes is "):
        fit_settings(50_000, "gru", TIMED, minutes, 5)


def test_a_borrowed_gpu_has_no_size_for_a_time():
    with pytest.raises(RequestError, match="^there is no size 'time'; choose one of small, medium, large$"):
        gpu_settings(50_000, "lstm", TIMED)


def test_a_gpu_is_borrowed_for_as_long_as_the_size_needs():
    for size, preset in PRESETS.items():
        for length in (1_000, 30_000, 1_000_000):
            chosen, seconds = gpu_settings(length, "lstm", size)
            assert 1 <= chosen["epochs"] <= settings.LONGEST_RUN
            assert seconds + settings.GPU_START_SECONDS <= preset.gpu_seconds <= 60
    short, long = (gpu_settings(1_000_000, "lstm", size)[1] for size in ("small", "large"))
    assert short < long
    assert gpu_settings(1_000_000, "lstm", "small")[0]["epochs"] > fit_settings(1_000_000, "lstm", "small")["epochs"]
