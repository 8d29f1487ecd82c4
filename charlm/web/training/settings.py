"""What a training on the page trains, and for how long: the settings of a run, from a text and a visitor's choices."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from charlm.checks import check_number
from charlm.errors import RequestError
from charlm.messages import show
from charlm.model.cells import CELLS
from charlm.web.models import ServedModel

START_FOLDER = "start"  # in the training's folder, so that messages show no path of the server

LARGEST_TEXT = 1_000_000  # bytes of UTF-8
SHORTEST_TEXT = 1_000  # characters

# The estimated time of a training on a borrowed GPU; one that takes longer is interrupted before the GPU is taken away.
GPU_START_SECONDS = 12  # until CUDA is ready, and to end
# Of an epoch. An H200 took 0.006 s for a step of 64 × 128 characters with 2×512, whose sequences are twice as long.
GPU_STEP_SECONDS, STEP_CHARACTERS, FEWEST_STEPS = 0.004, 32 * 64, 32
GPU_EPOCH_SECONDS = 1.5  # for measuring, a sample and saving
GPU_FACTOR = 4  # times as many characters as on the CPU, if there is time for them

Settings = dict[str, Any]  # fields of TrainConfig, or `minutes` of `fit`


@dataclass(frozen=True)
class Preset:
    """A size of model, and how much text it is trained on.

    characters: to read over all epochs at most: more epochs of a short text than of a long one. Reading more improves a
        model of this size little.
    duration: of reading them, in words, on one core of a machine with fast bfloat16.
    gpu_seconds: for which a GPU is borrowed at most. A visitor without an account has two minutes a day.
    """

    label: str
    layers: int
    hidden: int
    characters: int
    duration: str
    gpu_seconds: int

    def describe(self, *, on_gpu: bool) -> str:
        """Return the label with how long a training takes."""
        return f"{self.label}, " + (f"up to {self.gpu_seconds} s of GPU time" if on_gpu else self.duration)


# What the visitor may choose in place of a preset, on the CPU: the size that `fit --minutes` finds for their minutes.
# A borrowed GPU is lent for a time that has to be known before anything can be measured on it.
TIMED, TIMED_LABEL = "time", "the best size for a given time"
FEWEST_MINUTES, DEFAULT_MINUTES = 1.0, 2.0

PRESETS = {
    "small": Preset("small: 1 × 128", 1, 128, 2_700_000, "up to a minute", 30),
    "medium": Preset("medium: 1 × 256", 1, 256, 3_000_000, "up to two minutes", 45),
    "large": Preset("large: 2 × 256", 2, 256, 4_000_000, "up to four minutes", 60),
}
SHORTEST_RUN, LONGEST_RUN = 3, 24  # epochs; more of them learn a short text by heart
# A training that begins with a model has few epochs, as many as a core can do in about two minutes, and at least one.
MOST_EPOCHS, START_WORK = 5, 1.6e12  # parameters times characters read


def check_training_text(text: object) -> str:
    """Return a text that a model can be trained on. Raises RequestError if it is too short, too large, or no UTF-8."""
    if not isinstance(text, str) or len(text) < SHORTEST_TEXT:
        raise RequestError(f"the text is too short to learn from: give at least {SHORTEST_TEXT:,} characters")
    try:
        too_large = len(text) > LARGEST_TEXT or len(text.encode()) > LARGEST_TEXT
    except UnicodeEncodeError:
        raise RequestError("the text holds half a character (a lone surrogate): save it as UTF-8 first") from None
    if too_large:
        raise RequestError(f"the text is larger than {LARGEST_TEXT / 1e6:g} MB: train on a part of it")
    return text


def fit_settings(
    characters: int, cell: object, size: object, minutes: object = DEFAULT_MINUTES, most_minutes: float = math.inf
) -> Settings:
    """Return the settings of a training on the CPU, on a text of so many characters.

    minutes: for the size TIMED, at most `most_minutes`; other sizes ignore it.
    Raises RequestError for a cell or a size that does not exist, and for minutes out of bounds.
    """
    kind, name = _check_choice(cell, size, (TIMED, *PRESETS))
    if name == TIMED:
        minutes = check_number("the number of minutes", minutes, min(FEWEST_MINUTES, most_minutes), most_minutes)
        return {"cell": kind, "minutes": minutes, "device": "cpu"}
    return _preset_settings(characters, kind, PRESETS[name])


def _check_choice(cell: object, size: object, sizes: Sequence[str]) -> tuple[str, str]:
    """Return a cell and one of `sizes`, checked. Raises RequestError for one that does not exist."""
    for kind, value, choices in (("cell", cell, CELLS), ("size", size, sizes)):
        if not isinstance(value, str) or value not in choices:
            raise RequestError(f"there is no {kind} {show(value)}; choose one of {', '.join(choices)}")
    return str(cell), str(size)


def _preset_settings(characters: int, cell: str, preset: Preset) -> Settings:
    return {
        "cell": cell,
        "epochs": min(max(preset.characters // characters, SHORTEST_RUN), LONGEST_RUN),
        "num_layers": preset.layers,
        "hidden_size": preset.hidden,
        "embedding_size": preset.hidden // 2,
        "device": "cpu",
    }


def gpu_settings(characters: int, cell: object, size: object) -> tuple[Settings, int]:
    """Return the settings of a training on a borrowed GPU, and the seconds that it may take there.

    Raises RequestError for a cell or a size that does not exist, or does not exist there: TIMED.
    """
    kind, name = _check_choice(cell, size, tuple(PRESETS))
    settings, preset = _preset_settings(characters, kind, PRESETS[name]), PRESETS[name]
    wanted = min(max(GPU_FACTOR * preset.characters // characters, SHORTEST_RUN), LONGEST_RUN)
    return _on_gpu(settings | {"epochs": wanted}, characters, preset)


def _on_gpu(settings: Settings, characters: int, preset: Preset) -> tuple[Settings, int]:
    """Return settings with no more epochs than there is time for on a borrowed GPU, and the seconds that they take."""
    epoch = GPU_EPOCH_SECONDS + GPU_STEP_SECONDS * max(characters / STEP_CHARACTERS, FEWEST_STEPS)
    most = preset.gpu_seconds - GPU_START_SECONDS
    epochs = max(min(settings["epochs"], int(most / epoch)), 1)
    # in the call CUDA is there, and auto takes it
    return settings | {"epochs": epochs, "device": "auto"}, math.ceil(min(epochs * epoch, most))


def start_settings(characters: int, start: ServedModel, *, on_gpu: bool = False) -> tuple[Settings, int]:
    """Return the settings of a training that begins with a model, and the seconds that it may take on a borrowed GPU.

    Raises RequestError if one epoch takes too long on the CPU.
    """
    settings: Settings = {"init_from": start_folder(start), "epochs": MOST_EPOCHS, "device": "cpu"}
    if on_gpu:
        return _on_gpu(settings, characters, PRESETS["large"])
    parameters = start.lm.config.parameters
    most = int(START_WORK / parameters)
    if characters > most:
        raise RequestError(
            f"this text is too long to go on from {start.name} here, a model of {parameters:,} parameters: "
            f"give at most {most:,} characters, or start from random weights"
        )
    return settings | {"epochs": min(most // characters, MOST_EPOCHS)}, 0


def start_folder(start: ServedModel) -> str:
    """Return where a training finds the model to begin with, relative to its folder.

    The last part is the model's name without its owner, by which the record of the training calls it.
    """
    name = re.sub(r"[^\w.-]", "-", start.name.partition("@")[0].rpartition("/")[2]).strip(".-")
    return f"./{START_FOLDER}/{name or 'model'}"


def fit_arguments(settings: Settings) -> list[str]:
    """Return the arguments of `python -m train fit` for these settings."""
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
