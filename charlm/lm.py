"""CharLM: a trained model as its users hold it."""

import math
import tempfile
import warnings
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from charlm.analysis.context import LONGEST_DISTANCE, measure_effective_context
from charlm.analysis.influence import trace_influence
from charlm.analysis.inspection import Inspection, UnitGates, inspect, read_all_gates, read_unit_gates
from charlm.analysis.pattern import THRESHOLD, Pattern, find_places, units_on
from charlm.analysis.units import TrackingUnit, find_units
from charlm.checks import check_number, check_string, check_whole
from charlm.device import check_device, has_cuda, pick_device
from charlm.errors import HubError, ModelFileError, RequestError
from charlm.inference import DEFAULT_LENGTH, DEFAULT_TEMPERATURE
from charlm.inference.batching import Backend, BatchScheduler, EngineBackend, measure_chars_per_second, write_alone
from charlm.inference.engine import Engine
from charlm.inference.prefixes import PrefixCache
from charlm.inference.sampling import Sampler, SamplingSettings, check_finite
from charlm.inference.scoring import EngineReader, surprisals
from charlm.inference.streams import StopFinder, check_stop, closed_at_end, cut_at_stop, read_in_turns
from charlm.installation import optional_packages
from charlm.locks import RenewedLock
from charlm.messages import show
from charlm.model.card import card_picture, model_card
from charlm.model.config import ModelConfig, Weights
from charlm.model.folder import Model, find_kept, read_epoch, read_usable_model, write_model
from charlm.model.history import HISTORY_FILE, HistoryRecord, bits_per_char
from charlm.model.kept import restrict_kept
from charlm.model.weights import check_numbers, check_tensors
from charlm.model_name import (
    HubName,
    check_revision,
    explain_missing,
    parse_folder,
    parse_model_name,
    parse_push_target,
)
from charlm.vocab import Ids, Vocab

if TYPE_CHECKING:
    from charlm.hub import Description
    from charlm.model.network import Network

SAMPLE_LENGTH, SAMPLE_TEMPERATURES = 250, (0.5, 1.0, 1.5)  # of the samples on a model card

Stop = str | Sequence[str] | None
T = TypeVar("T")


class made_once(cached_property[T]):  # noqa: N801  # like the name of what it extends
    """A cached property that is made once also where several threads ask for it first.

    `cached_property` has no lock from Python 3.12 on: two threads would get an object each, and requests that two batch
    schedulers write are not written in one batch. The lock is one for all, because making one property asks for another
    one; it is held while something is made, and not to read what has been made.
    """

    _lock = RenewedLock()

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        with self._lock:
            return super().__get__(instance, owner)


@dataclass(frozen=True)
class Sample:
    """A text that a model wrote.

    seed: with it and the other settings, `generate` writes this text alone.
    bits_per_char: its mean surprisal under the model itself, at temperature 1 and without limits; None if it is empty.
    """

    text: str
    seed: int
    bits_per_char: float | None


class CharLM:
    """A character-level language model: it writes text, and scores text by the surprisal of each character.

    It keeps no state between calls, so threads may share one.

    config: the architecture and the vocabulary.
    vocab: the symbols it knows.
    history: the training record (the content of history.json), or None if there is none or it is damaged.
    record_problem: what is wrong with the record that it was loaded with; empty if nothing is.
    source: where it was loaded from: `hub`, `cache` (the Hub's copy on this disk) or `folder`.
    revision: the commit it came from, or None for a folder.
    weights_sha256: of the file that its weights were loaded from, in hex; empty if it was not loaded.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        history: HistoryRecord | None = None,
        *,
        device: str = "auto",
        source: str = "folder",
        revision: str | None = None,
        record_problem: str = "",
        weights_sha256: str = "",
    ) -> None:
        """weights: float32 arrays with the names and shapes of `config.tensor_shapes`. device: see from_pretrained.

        Raises ModelFileError for weights of other names or shapes.
        """
        check_tensors(config, weights)
        self.config = config
        self.history = history
        self.source = source
        self.revision = revision
        self.record_problem = record_problem
        self.weights_sha256 = weights_sha256
        self.vocab = Vocab(config.vocab)
        self._weights = weights
        self.device = self._faster_device() if device == "auto" else pick_device(device)

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        device: str = "auto",
        epoch: int | None = None,
    ) -> "CharLM":
        """Load a model from a folder, or from the Hub if no such folder is here.

        repo_or_folder: a model folder, or on the Hub USER/NAME, USER/NAME@REVISION, hf://USER/NAME[@REVISION] or the
            web address. A Path, ./USER/NAME and an absolute path are always folders. A name that is both a folder
            here and possible on the Hub is the folder, with a warning.
        revision: a branch, tag or commit of the repository; its main branch by default.
        token: for private repositories; by default the one that `hf auth login` stored, if the
            repository needs one.
        device: cpu, cuda, mps, or auto: the one of CPU and CUDA that writes a batch of streams the faster here.
            The attribute `device` says which.
        epoch: the model as it was after that epoch, of those whose weights `fit --keep-epochs` kept, with its record up
            to then.

        If the Hub cannot be reached, the copy in its cache is used, with a warning. A model whose training record is
        damaged comes without it, with a warning. Raises HubError if the Hub refuses, HubUnavailableError if it cannot
        be reached and nothing is cached, ModelFileError if configuration and weights are not a sound model,
        RequestError for a wrong argument.
        """
        check_device(device)  # before anything is downloaded
        epoch = None if epoch is None else check_whole("epoch", epoch, 1)
        revision = None if revision is None else check_revision(revision)
        found, warning = parse_model_name(repo_or_folder)
        if warning:
            warnings.warn(warning, stacklevel=2)
        if isinstance(found, Path):
            if revision is not None:
                raise RequestError(
                    f"revision={revision!r} is that of a repository, and {repo_or_folder} is a folder: leave it out, "
                    "or write hf://USER/NAME for a repository on the Hub"
                )
            model = read_usable_model(found)
            lm = cls._from_model(model if epoch is None else read_epoch(found, model, epoch), device)
        else:
            lm = cls._from_hub(str(repo_or_folder), found, revision, token, device, epoch)
        if lm.record_problem:
            warnings.warn(
                f"{repo_or_folder}: {lm.record_problem}; the model is used without its training record until "
                f"{HISTORY_FILE} is mended or removed",
                stacklevel=2,
            )
        return lm

    @classmethod
    def _from_hub(
        cls,
        name: str,
        found: HubName,
        revision: str | None,
        token: str | bool | None,
        device: str,
        epoch: int | None,
    ) -> "CharLM":
        """See from_pretrained. name: as the user wrote it."""
        if None not in (revision, found.revision) and revision != found.revision:
            raise RequestError(f"{name} and revision={revision!r} name two revisions; leave out one of them")
        from charlm import hub  # here, because loading a folder needs no huggingface_hub

        try:
            fetched = hub.fetch(found.repo_id, revision if revision is not None else found.revision, token, epoch)
        except HubError as error:
            raise explain_missing(name, error) from None
        return cls._from_model(fetched.model, device, fetched.source, fetched.revision)

    @classmethod
    def from_description(cls, described: "Description", *, device: str = "auto") -> "CharLM":
        """Load exactly the commit that `hub.describe` described; the Hub is not asked for it again.

        Raises HubError, HubUnavailableError, ModelFileError and RequestError as `from_pretrained` does.
        """
        check_device(device)  # before anything is downloaded
        from charlm import hub

        fetched = hub.download(described)
        return cls._from_model(fetched.model, device, fetched.source, fetched.revision)

    @classmethod
    def _from_model(cls, model: Model, device: str, source: str = "folder", revision: str | None = None) -> "CharLM":
        return cls(
            model.config,
            model.weights,
            model.history,
            device=device,
            source=source,
            revision=revision,
            record_problem=model.record_problem,
            weights_sha256=model.weights_sha256,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and copy keep: without what is made when it is needed, such as threads and locks."""
        made = {name for name, value in vars(CharLM).items() if isinstance(value, made_once)}
        return {name: value for name, value in vars(self).items() if name not in made}

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<{config.kind.label} {config.num_layers}×{config.hidden_size}, {config.parameters:,} parameters, "
            f"{len(self.vocab)} symbols, on {self.device}>"
        )

    @made_once
    def engine(self) -> Engine:
        """The model as it runs on a CPU, without torch."""
        return Engine(self.config, self._weights)

    @made_once
    def _scheduler(self) -> BatchScheduler[Any]:
        return BatchScheduler(self._backend)

    @made_once
    def _backend(self) -> Backend[Any]:
        """What writes on `device`."""
        if self.device == "cpu":
            return EngineBackend(self.engine, self._prefixes)
        with optional_packages():
            from charlm.inference.gpu import GpuBackend

        return GpuBackend(self.network)

    @made_once
    def _prefixes(self) -> PrefixCache:
        return PrefixCache(self.engine)

    @made_once
    def network(self) -> "Network":
        """The model as a torch module on `device`, for reading: no dropout, no gradients.

        Raises MissingPackageError without torch.
        """
        with optional_packages():
            from charlm.model.network import Network

        return Network.from_weights(self.config, self._weights, self.device)

    def generate(
        self,
        prompt: str = "",
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        *,
        stop: Stop = None,
    ) -> str:
        """Return `length` new characters that continue `prompt`, without the prompt itself.

        The same seed gives the same text; None draws a seed. `charlm.inference.sampling.SamplingSettings` says what
        temperature, top_k and top_p do. Symbols of the prompt that the model does not know are left
        out, with a warning; an empty prompt starts a new line.

        stop: strings, or one, before the first of which the text ends. If several are complete at the same character,
            the longest counts.

        Raises RequestError for a value out of bounds, ModelFileError if the model's outputs are not finite numbers.
        """
        sampler = Sampler(SamplingSettings(temperature, top_k, top_p, seed))
        ids, length = self._check_prompt(prompt, length)
        return "".join(self._write(ids, length, sampler, self._check_stop(stop)))

    def generate_many(
        self,
        prompt: str = "",
        num_samples: int = 1,
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        *,
        stop: Stop = None,
    ) -> list[Sample]:
        """Return several texts that continue `prompt`, written side by side in one batch; see `generate`.

        The seeds are seed, seed + 1, and so on: each text is what `generate` returns for its seed. Raises what
        `generate` does.
        """
        settings = SamplingSettings(temperature, top_k, top_p, seed)
        seeds = range(settings.seed, settings.seed + check_whole("num_samples", num_samples, 1))
        ids, length = self._check_prompt(prompt, length)
        stops = self._check_stop(stop)
        streams = [self._write_shared(ids, length, Sampler(replace(settings, seed=each)), stops) for each in seeds]
        texts = [""] * len(streams)
        nats: list[list[NDArray[np.float64]]] = [[] for _ in streams]
        with closed_at_end(streams):
            for number, piece in read_in_turns(streams):
                if piece:
                    texts[number] += piece[0]
                    nats[number].append(piece[1])
        # summed as a whole, since the sum of the sums of the pieces depends on where these end
        means = [bits_per_char(float(np.concatenate(costs).mean())) if costs else None for costs in nats]
        return list(map(Sample, texts, seeds, means))

    def stream(
        self,
        prompt: str = "",
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        *,
        stop: Stop = None,
    ) -> Iterator[str]:
        """Yield the text of `generate` a character at a time, as it is written.

        stop: see `generate`. Characters that may begin a stop string are held back until it is known whether they do.

        Arguments are checked at the call, before the first character is asked for. Raises what `generate` does.
        """
        sampler = Sampler(SamplingSettings(temperature, top_k, top_p, seed))
        ids, length = self._check_prompt(prompt, length)
        return self._write(ids, length, sampler, self._check_stop(stop))

    def stream_scored(
        self,
        prompt: str,
        length: int,
        settings: SamplingSettings,
        *,
        stop: Stop = None,
        after: str = "",
        forced: Mapping[int, str] | None = None,
    ) -> Generator[tuple[str, NDArray[np.float64]]]:
        """Yield the text of `stream` in pieces, each with the surprisals of its N characters in nats, (N,).

        The text is written in one batch with those that other threads ask for at the same time, which is faster than
        one after another; it does not depend on them. It is written ahead of its reader and kept in memory until it is
        read; close the iterator to end it early.

        The surprisals are those of the model itself, at temperature 1 and without limits: what `score` would give for
        the text.

        after: what these settings and this seed have written already. `length` more characters follow, those that
            would have come if it had never been stopped. Stop strings are looked for in those only.
        forced: symbols by place, from 0 at the first character behind the prompt, that stand there whatever is drawn.
            Their random numbers are used up all the same. Places within `after` change nothing.

        Raises RequestError for what is no place or not one symbol, VocabError for a symbol of `after` or `forced` that
        the model does not know, and what `stream` does.
        """
        if not isinstance(settings, SamplingSettings):
            raise RequestError(f"settings are {show(settings)}; give SamplingSettings")
        sampler = Sampler(settings)
        ids, length = self._check_prompt(prompt, length)
        written, stops = self.vocab.encode(check_string("after", after)), self._check_stop(stop)
        sampler.skip(len(written))
        chosen = {place - len(after): id for place, id in self._check_forced({} if forced is None else forced).items()}
        return self._write_shared(np.concatenate([ids, written]), length, sampler, stops, chosen)

    def logits(self, prompt: str = "", after: str = "") -> NDArray[np.float32]:
        """Return the logits (V,) from which the character behind `prompt` and `after` is drawn.

        prompt, after: as in `stream_scored`. Always computed on the CPU. Raises VocabError if `after` holds a symbol
        that the model does not know, ModelFileError if a logit is not finite.
        """
        ids, _ = self._check_prompt(prompt, 0)
        read = np.concatenate([ids, self.vocab.encode(check_string("after", after))])
        logits: NDArray[np.float32] = self._prefixes.read(read).logits()[0]
        check_finite(float(np.abs(logits).max()))
        return logits

    def _check_prompt(self, prompt: str, length: int) -> tuple[Ids, int]:
        """Return the ids to read and the checked length. Warns about symbols that are skipped."""
        length = check_whole("length", length, 0)
        ids, skipped = self.vocab.encode_known(check_string("prompt", prompt))
        if skipped:
            symbols = "".join(dict.fromkeys(skipped))
            warnings.warn(f"the prompt's {show(symbols)} was skipped: the model does not know it", stacklevel=3)
        return ids if len(ids) else self._start(), length

    def _check_forced(self, forced: Mapping[int, str]) -> dict[int, int]:
        """Return the id of each forced symbol, by its place. Raises what `stream_scored` does."""
        if not isinstance(forced, Mapping):
            raise RequestError(f"forced is {show(forced)}; give a dict of one character for each place, as {{0: 'a'}}")
        ids = {}
        for place, symbol in forced.items():
            whole = check_whole("a place in forced", place, 0)
            if not isinstance(symbol, str) or len(symbol) != 1:
                raise RequestError(
                    f"forced has {show(symbol)} at place {show(whole)}; give one character for each place"
                )
            ids[whole] = int(self.vocab.encode(symbol)[0])
        return ids

    def _check_stop(self, stop: Stop) -> tuple[str, ...]:
        """Return the stop strings. Warns about those that the model cannot write."""
        stops = check_stop(stop)
        for one in stops:
            if unknown := self.vocab.keep_known(one)[1]:
                warnings.warn(
                    f"no text ends at the stop string {show(one)}: the model does not know {show(unknown)}",
                    stacklevel=3,
                )
        return stops

    def score(self, text: str) -> NDArray[np.float64]:
        """Return the surprisal of each character of `text` but the first, in nats: (N - 1,) for N characters.

        The mean is the text's cross-entropy under the model; exp of it is the perplexity.
        Raises VocabError if the text holds a symbol that the model does not know, ModelFileError if the model's outputs
        are not finite numbers.
        """
        return np.concatenate([np.zeros(0), *self.score_ids([self.vocab.encode(check_string("text", text))])])

    def score_ids(self, pieces: Iterable[Ids]) -> Iterator[NDArray[np.float64]]:
        """Yield what `score` returns, in parts, for a text that comes as ids in pieces (N,) of any size.

        However long the text is, the memory that this takes is the same. Raises RequestError for a number that is no
        id of the vocabulary, when its piece is read, and what `score` does.
        """
        if not isinstance(pieces, Iterable):
            raise RequestError(f"pieces are {show(pieces)}; give a list of arrays of ids, as vocab.encode returns them")
        checked = map(self.vocab.check_ids, pieces)
        return surprisals(EngineReader(self.engine), checked) if self.device == "cpu" else self._score_on_gpu(checked)

    def inspect(self, text: str, *, gates: bool = False) -> Inspection:
        """Read a text; return the model's predictions at each character and the activations of its units.

        Its `surprisals` (N,) are nats, NaN for the first character; `likeliest` (N, 5) are ids of symbols, and
        `probabilities` theirs; the states are `hidden` (N, L, H), of an LSTM also `cell_state`. Places, layers and
        units count from 0.

        gates: whether to return the gates of all units as well. Each gate takes as much memory as the hidden states: 2
            KB a character for 512 units. `unit_gates` computes those of one unit of what was inspected without them.

        Raises VocabError if the text holds a symbol that the model does not know, ModelFileError if the model's outputs
        are not finite numbers.
        """
        ids = self.vocab.encode(check_string("text", text))
        seen = inspect(self.engine, self.vocab, ids)
        return read_all_gates(self.config, self._weights, ids, seen) if gates else seen

    def unit_gates(self, seen: Inspection, layer: int, unit: int) -> UnitGates:
        """Return the gates of one unit at each character of an inspected text, and how often they are saturated.

        layer, unit: from 0. Raises RequestError if there is no such unit, or the text is empty.
        """
        ids = self.vocab.encode(_check_seen(seen).text)
        return read_unit_gates(self.config, self._weights, ids, seen, layer, unit)

    def find_pattern(
        self,
        seen: Inspection,
        start: int,
        end: int,
        threshold: float = THRESHOLD,
        *,
        within: str | None = None,
        seconds: float = math.inf,
    ) -> Pattern:
        """Return the units that are on in a stretch of an inspected text and off around it, and where else they are on.

        start, end: of the stretch, from 0, the end not included. A unit is on where its hidden state is above
            `threshold`, from -1 to 1. `charlm.analysis.pattern` says which places are found.
        within: the text to search, by default the one that was inspected. seconds: after which the search ends.

        Raises VocabError if the text to search holds a symbol that the model does not know, RequestError for a stretch
        outside of the text that was inspected, or too long a one, or another number out of bounds.
        """
        units = units_on(_check_seen(seen).hidden, start, end, threshold)
        is_same = within is None or within == seen.text
        ids = self.vocab.encode(seen.text if within is None else check_string("within", within))
        besides = (start, end) if is_same else (0, 0)
        return Pattern(units, *find_places(self.engine, ids, units, end - start, threshold, besides, seconds))

    def find_units(self, text: str, best: int = 5) -> dict[str, list[TrackingUnit]]:
        """Return for each feature of a text, e.g. `inside quotes`, the units that track it best (`analysis.units`).

        text: some thousand characters that the model was not trained on. Raises VocabError if one of them is
        unknown to it, RequestError if they are too few.
        """
        return find_units(self.engine, self.vocab, check_string("text", text), best)

    def effective_context(self, text: str, longest: int = LONGEST_DISTANCE) -> NDArray[np.float64]:
        """Return how much a changed character alters the prediction d characters later, in nats, (longest,).

        The mean over places of the text. `charlm.analysis.context` says how it is measured; its `context_length` gives
        the largest distance that still matters. Raises VocabError if the text holds a symbol that the model does not
        know, RequestError if it is too short, or `longest` below 1, ModelFileError if the model's outputs are not
        finite numbers.
        """
        return measure_effective_context(self.engine, self.vocab.encode(check_string("text", text)), longest)

    def influence(self, text: str) -> NDArray[np.float64]:
        """Return how strongly each character of a text of N moved the prediction of its last, (N - 1,).

        That is the norm of the gradient of its log-probability with respect to the character's embedding. In an LSTM of
        512 units it takes 40 KB of memory for each character.

        Raises VocabError if the text holds a symbol that the model does not know, RequestError if it has fewer than
        two, ModelFileError if a gradient is not finite.
        """
        return self.influence_at(self.inspect(text), len(text) - 1, len(text))

    def influence_at(self, seen: Inspection, place: int, farthest: int) -> NDArray[np.float64]:
        """Return how strongly each of the `farthest` characters before a place moved its prediction, or all before it.

        seen: what `inspect` returned of the text, so that nothing is read again. place: of a character, from 1.
        Raises RequestError if there is no such place, ModelFileError if a gradient is not finite.
        """
        ids = self.vocab.encode(_check_seen(seen).text)
        return trace_influence(
            self.engine, self.config.cell, self._weights, ids, seen.hidden, seen.cell_state, place, farthest
        )

    def save_pretrained(self, folder: str | Path, *, samples: Mapping[float, str] | None = None) -> None:
        """Write the model folder: all its files or, on failure, none. Files of those names are replaced.

        If this model has no training record, a history.json or a loss.png that is there is deleted.

        samples: texts for the model card by temperature; by default those of `write_samples`, on this model's device.

        The weights of single epochs that were kept are not written; the record names only those that the folder has.

        Raises RequestError if the folder cannot be made, or has a damaged training record, which would be lost, or for
        samples that are not texts by temperature; ModelFileError if a weight is no finite number, so that the model
        could not be loaded again; OSError if a file cannot be written, for example on a full disk;
        MissingPackageError without matplotlib, if the model has a record, whose curves are drawn.
        """
        folder, samples = parse_folder(folder), None if samples is None else _check_samples(samples)
        if self.record_problem and (folder / HISTORY_FILE).exists():
            raise RequestError(
                f"{folder} has a damaged {HISTORY_FILE}, and saving would delete it; mend or remove it, "
                "or choose another folder"
            )
        self._save(folder, find_kept(folder, self.history), samples)

    def _save(self, folder: Path, kept: Collection[int], samples: Mapping[float, str] | None = None) -> None:
        """See save_pretrained. kept: the epochs whose weights the record names."""
        check_numbers(self._weights)
        history = restrict_kept(self.history, kept)
        card = model_card(self.config, history, self.write_samples() if samples is None else samples)
        picture = card_picture(self.config, history)
        write_model(folder, Model(self.config, self._weights, history), card, picture)

    def write_samples(self) -> dict[float, str]:
        """Write samples for the model card, by temperature; none if the model's logits are not finite."""
        try:
            return {each: self.generate("", SAMPLE_LENGTH, each, seed=0) for each in SAMPLE_TEMPERATURES}
        except ModelFileError:
            return {}

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        license: str | None = None,
        language: str | None = None,
        space: str | None = None,
        token: str | bool | None = None,
    ) -> str:
        """Publish the model as a repository on the Hub, in one commit; return the commit's address.

        The weights of single epochs that were kept are not published (`charlm.publishing.push_folder` does that); those
        of this model that the repository has already stay.

        repo_id: USER/NAME, hf://USER/NAME or the web address.
        private: whether a repository that has to be created is private; one that is there and public is refused.
        license, language: for the metadata of the card, a licence as the Hub names it (mit) and a code (en).
        space: USER/SPACE that shows the model, to which the card links.
        Raises HubError if the Hub refuses, RequestError for an unknown licence or language, ModelFileError if the model
        was loaded with a damaged training record, without which it would be published, MissingPackageError as
        `save_pretrained`.
        """
        from charlm.publishing import published_epochs, push_folder

        parse_push_target(check_string("repo_id", repo_id))  # before the samples of the card are written
        if self.record_problem:
            raise ModelFileError(f"{self.record_problem}; mend or remove {HISTORY_FILE}, and load the model again")
        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), published_epochs(repo_id, self.history, token))
            return push_folder(
                Path(folder), repo_id, private=private, license=license, language=language, space=space, token=token
            )

    def _start(self) -> Ids:
        return self.vocab.encode(self.config.start)

    def _write(self, prompt: Ids, length: int, sampler: Sampler, stops: Sequence[str]) -> Iterator[str]:
        """Yield the symbols of a text that is written alone."""
        symbols = (self.vocab.symbols[id] for id in write_alone(self._backend, prompt, length, sampler))
        return cut_at_stop(symbols, stops) if stops else symbols

    def _write_shared(
        self,
        prompt: Ids,
        length: int,
        sampler: Sampler,
        stops: Sequence[str],
        forced: Mapping[int, int] | None = None,
    ) -> Generator[tuple[str, NDArray[np.float64]]]:
        finder, held = StopFinder(stops), np.zeros(0)  # the surprisals of what the finder holds back
        for ids, costs in self._scheduler.write(prompt, length, sampler, forced):
            text, costs = finder.feed(self.vocab.decode(np.array(ids))), np.concatenate([held, costs])
            held = costs[len(text) :]
            if text:
                yield text, costs[: len(text)]
            if finder.has_found:
                return
        if rest := finder.rest():
            yield rest, held

    def _score_on_gpu(self, pieces: Iterable[Ids]) -> Iterator[NDArray[np.float64]]:
        with optional_packages():
            from charlm.inference.gpu import score

        return score(self.network, pieces)

    def _faster_device(self) -> str:
        """Return the device that writes a batch of streams the faster; it is measured if there is a choice.

        It is the CPU, with a warning, if the GPU fails. If it is the GPU, the network that was measured is kept.
        """
        if not has_cuda():
            return "cpu"
        from torch import OutOfMemoryError

        from charlm.inference.gpu import GpuBackend
        from charlm.model.network import Network

        try:
            network = Network.from_weights(self.config, self._weights, "cuda")
            on_cuda = measure_chars_per_second(GpuBackend(network))
        except OutOfMemoryError:  # other programs use the GPU
            return "cpu"
        except ModelFileError:  # logits that are not finite, which are told where the model is used
            return "cpu"
        except RuntimeError as error:  # a GPU that only one process may use, or for which torch has no kernels
            cause = str(error).partition("\n")[0]
            warnings.warn(f"the GPU cannot run the model ({cause}); it runs on the CPU", stacklevel=5)
            return "cpu"
        if on_cuda <= measure_chars_per_second(EngineBackend(self.engine)):
            return "cpu"
        self.network = network
        return "cuda"


def _check_seen(seen: object) -> Inspection:
    """Return what `inspect` returned. Raises RequestError for anything else, such as a text."""
    if not isinstance(seen, Inspection):
        raise RequestError(f"seen is {show(seen)}; give what `inspect` returned of a text")
    return seen


def _check_samples(samples: object) -> dict[float, str]:
    """Return the samples of a model card, by temperature. Raises RequestError unless they are texts by number."""
    if not isinstance(samples, Mapping):
        raise RequestError(f"samples are {show(samples)}; give a dict of texts by temperature, as {{0.5: 'a text'}}")
    checked = {}
    for temperature, text in samples.items():
        number = check_number("a temperature in samples", temperature, 0, math.inf)
        checked[number] = check_string("a text in samples", text)
        if any("\ud800" <= symbol <= "\udfff" for symbol in text):
            raise RequestError(f"a text in samples is {show(text)}, with half of a surrogate pair; leave that out")
    return checked
