"""The settings of a training run, from which the command line is made."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from charlm.checks import check_number, check_whole
from charlm.device import DEVICES, pick_device
from charlm.errors import ModelFileError, RequestError
from charlm.messages import counted
from charlm.model.cells import CELLS

from .recipes import LARGE_BATCHES, TrainingRecipe, recipe_for_text
from .split import DEFAULT_SPLIT, check_split, normal_split

if TYPE_CHECKING:
    from charlm.model.config import ModelConfig
    from charlm.vocab import Vocab

    from .protocols import Protocol

PROTOCOL_NAMES = ("holdout", "windows")  # of train.protocols.PROTOCOLS, which needs torch
MOST_EPOCHS = 5_000  # charlm.model.history.MOST_RECORDED_EPOCHS, which needs numpy
PRECISIONS = ("auto", "fp32", "bf16")

# The groups of the options of `fit`, in the order of its help.
TEXT, MODEL, TRAINING = "the text and where the model goes", "the model", "the training"
MACHINE, PUBLISHING = "the machine", "publishing and progress"
GROUPS = (TEXT, MODEL, TRAINING, MACHINE, PUBLISHING)

# In place of the defaults below for a training that begins with a model; docs/log.md has the losses behind them.
START_DEFAULTS = {"epochs": 3, "lr": 0.001, "warm_up": 0.1}
# A short text is read in fewer streams, so that an epoch has at least this many steps to learn in.
MIN_STEPS_PER_EPOCH = 32
LR_BOUNDS = 1e-9, 10  # of a learning rate, in the control file, too


def setting(
    default: Any,
    *,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: Iterable[str] | None = None,
    check: Callable[[str], str] | None = None,
    metavar: str | None = None,
    group: str = TRAINING,
) -> Any:
    """Declare a field of TrainConfig, the help text of its flag and its group there.

    A number has bounds, a string choices, or a `check` that returns it in its normal form, or raises RequestError.
    metavar: what stands for the value in the help; None takes that of its type.
    """
    rules = {"help": help, "low": low, "high": high, "choices": choices, "check": check}
    rules |= {"metavar": metavar, "group": group}
    return field(default=default, metadata=rules)


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a run. None, or "auto", stands for a choice that `resolve` makes by cell, text and machine.

    Raises RequestError when built with a value out of bounds, or with a split that the protocol does not have.
    """

    cell: str = setting("lstm", help="kind of recurrent cell", choices=CELLS, group=MODEL)
    protocol: str = setting("holdout", help="how to split and measure the text", choices=PROTOCOL_NAMES, group=TEXT)
    split: str = setting(
        DEFAULT_SPLIT,
        help="shares that train and validate, in the order of the text; a third one is read once, as a test at the end",
        check=normal_split,
        metavar="A,B",
        group=TEXT,
    )
    epochs: int = setting(
        24,
        low=1,
        high=MOST_EPOCHS,
        help="passes over the training text; fewer take a higher learning rate and less dropout, and so does a smaller "
        "model; a shorter text takes a higher learning rate",
    )
    hidden_size: int = setting(512, low=1, high=16_384, help="units in a layer", group=MODEL)
    num_layers: int = setting(2, low=1, high=64, help="recurrent layers", group=MODEL)
    embedding_size: int = setting(
        512, low=1, high=16_384, help="size of the vector that stands for a symbol", group=MODEL
    )
    dropout: float | None = setting(None, low=0, high=0.99, help="share of a layer's outputs dropped")
    embedding_dropout: float | None = setting(None, low=0, high=0.99, help="share of the embedding dropped")
    batch_size: int | None = setting(
        None,
        low=1,
        high=65_536,
        help="sequences read in parallel (default 32, fewer for a short text; 64 for windows and with --init-from)",
    )
    seq_length: int | None = setting(
        None,
        low=1,
        high=65_536,
        help="characters that gradients flow back through (default 64; 128 with --init-from; a window's length)",
    )
    lr: float | None = setting(None, low=LR_BOUNDS[0], high=LR_BOUNDS[1], help="highest learning rate")
    warm_up: float = setting(0.0, low=0, high=1, help="share of the steps in which the learning rate rises to --lr")
    weight_decay: float | None = setting(None, low=0, high=10, help="decoupled weight decay of AdamW")
    clip_norm: float = setting(1.0, low=0, high=1e9, help="largest norm of the gradient allowed; 0 allows any")
    seed: int = setting(0, low=0, high=2**63 - 1, help="seed of every random number of the run")
    device: str = setting(
        "auto", help="auto takes CUDA if available, else MPS, else the CPU", choices=DEVICES, group=MACHINE
    )
    precision: str = setting(
        "auto", help="auto takes bf16 where it is faster than fp32", choices=PRECISIONS, group=MACHINE
    )

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value, rules = getattr(self, spec.name), spec.metadata
            if rules["choices"] is not None:
                if value not in rules["choices"]:
                    raise RequestError(f"{spec.name} is {value!r}; choose one of {', '.join(rules['choices'])}")
            elif value is None and spec.default is None:
                continue
            elif rules["check"] is not None:
                object.__setattr__(self, spec.name, rules["check"](value))
            else:
                check = check_number if value_type(spec) is float else check_whole
                # a plain float or int instead of, say, a numpy number: history.json records it
                object.__setattr__(self, spec.name, check(spec.name, value, rules["low"], rules["high"]))
        check_split(self.protocol, self.split)

    def resolve(
        self, protocol: "Protocol", processes: int = 1, *, adapts: bool = True, written_chars: int = 0
    ) -> "TrainConfig":
        """Return the settings with every choice made, for a text split by a protocol.

        processes: how many train together; the batch size that is chosen can be divided evenly among them.
        adapts: whether what is left open follows the number of epochs, the text and the model; False for a run that
            begins with a model, whose defaults are others. Windows always have the recipe of long runs, in larger
            batches: an experiment is repeated as it was.
        written_chars: that teachers write, from which the model learns as from the text.
        Raises RequestError if the text is too short for the settings, or this machine lacks the device.
        """
        # importing torch takes seconds, and `--help` needs nothing but the fields
        import torch

        from .precision import pick_precision

        recipe = LARGE_BATCHES[self.cell]
        if adapts and protocol.is_in_order:
            recipe = self._recipe_of_epochs(protocol, written_chars)
        seq_length = protocol.seq_length(self.seq_length, recipe.seq_length, written_chars)
        max_batch_size = protocol.max_batch_size(seq_length, written_chars)
        if self.batch_size is not None and self.batch_size > max_batch_size:
            raise RequestError(
                f"the text holds {counted(max_batch_size, 'sequence')} of {seq_length}, fewer than --batch-size "
                f"{self.batch_size}; lower one of the two"
            )
        if max_batch_size < processes:
            raise RequestError(
                f"the text holds {counted(max_batch_size, 'sequence')} of {seq_length}, fewer than there are processes "
                f"({processes}); start fewer of them or give a longer text"
            )
        device = torch.device(pick_device(self.device))
        left_open = {name: value for name, value in dataclasses.asdict(recipe).items() if getattr(self, name) is None}
        batch_size = self.batch_size or suitable_batch_size(recipe.batch_size, max_batch_size, processes)
        return dataclasses.replace(
            self,
            **left_open
            | {"seq_length": seq_length, "batch_size": batch_size, "device": device.type}
            | {"precision": pick_precision(self.precision, device, self.hidden_size)},
        )

    def _recipe_of_epochs(self, protocol: "Protocol", written_chars: int) -> TrainingRecipe:
        # Holdout.seq_length refuses a text of which nothing trains, and says what is needed
        chars = max(protocol.split["train_chars"], 1) + written_chars
        return self.recipe(protocol.vocab, self.epochs * chars, chars)

    def recipe(self, vocab: "Vocab", chars: float, train_chars: int) -> TrainingRecipe:
        """Return the recipe for reading `chars` characters from a text of `train_chars`, which has these symbols."""
        return recipe_for_text(self.cell, self.lstm_parameters(vocab), chars, train_chars)

    def lstm_parameters(self, vocab: "Vocab") -> int:
        """Return how many parameters an LSTM of this size has: four blocks in place of those of this cell."""
        model = self.model(vocab)
        layers = sum(math.prod(shape) for name, shape in model.tensor_shapes.items() if name.startswith("recurrent."))
        return model.parameters - layers + layers * CELLS["lstm"].gates // model.kind.gates

    def model(self, vocab: "Vocab") -> "ModelConfig":
        """Return the model of this run, whose text has these symbols; without dropout if that is not chosen yet.

        Raises RequestError if it is larger than charlm allows.
        """
        from charlm.model.config import MOST_SYMBOLS, ModelConfig  # needs numpy, and `--help` does not

        try:
            return ModelConfig(
                self.cell, vocab.symbols, self.embedding_size, self.hidden_size, self.num_layers, self.dropout or 0.0
            )
        except ModelFileError as error:  # each setting is in its bounds: there are too many symbols or parameters
            sizes = "lower --hidden-size, --num-layers or --embedding-size"
            way_out = "give a higher --min-count" if len(vocab) > MOST_SYMBOLS else sizes
            raise RequestError(f"the model would be too large: {error}; {way_out}") from None


def suitable_batch_size(wanted: int, max_batch_size: int, processes: int = 1) -> int:
    """Return what is wanted, less if epochs would have too few steps, as a multiple of the number of processes."""
    few = min(wanted, max_batch_size // MIN_STEPS_PER_EPOCH)
    return max(few // processes, 1) * processes


def value_type(spec: "dataclasses.Field[Any]") -> type[str] | type[int] | type[float]:
    """Return float, int or str: the type of a setting's value where it is not None."""
    kinds: tuple[Any, ...] = getattr(spec.type, "__args__", (spec.type,))
    return next(kind for kind in (float, int, str) if kind in kinds)
