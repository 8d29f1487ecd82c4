"""The answers in the form of OpenAI's completions API: requests are checked, texts written. A token is a character."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import orjson

from charlm.analysis.inspection import SHOWN_SYMBOLS, PredictionReader
from charlm.checks import check_number, check_text, check_whole
from charlm.errors import RequestError
from charlm.inference.sampling import SamplingSettings
from charlm.inference.streams import read_in_turns
from charlm.messages import show
from charlm.nearest import nearest
from charlm.web.answers.inside import LONGEST_INSPECTED
from charlm.web.answers.write import (
    HIGHEST_TEMPERATURE,
    LARGEST_TOP_K,
    LONGEST_MODEL_NAME,
    LONGEST_PROMPT,
    LONGEST_TEXT,
    MOST_SAMPLES,
    check_stops,
    gather_updates,
)
from charlm.web.models import ModelRegistry, ServedModel

PATH = "/v1/"  # below which everything is answered in OpenAI's form
# Symbols of a prompt that were skipped and are told: each part of a stream tells them.
LONGEST_SKIPPED = 200
DEFAULT_TOKENS = 16  # of max_tokens, OpenAI's
LARGEST_SEED = 2**63 - 1  # OpenAI's; JSON has no larger whole numbers in many languages

Json = dict[str, Any]


class CompletionError(RequestError):
    """A request is refused. param: the field that is wrong. status: of HTTP. code: OpenAI's word for the reason."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


def error_object(status: int, message: str, param: str | None = None, code: str | None = None) -> Json:
    """Return an error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def list_models(registry: ModelRegistry, created: int) -> Json:
    """Return the listed models in OpenAI's form. created: the time that is given for all of them."""
    return {"object": "list", "data": [_describe(model.name, created) for model in registry]}


def describe_model(registry: ModelRegistry, name: str, created: int) -> Json:
    """Return one model in OpenAI's form. Raises CompletionError if there is none of that name."""
    return _describe(_find_model(registry, name).name, created)


def _describe(name: str, created: int) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": "charlm"}


@dataclass(frozen=True)
class CompletionRequest:
    """What is to be written, checked: `n` texts after each prompt.

    logprobs: how many likeliest characters are told for each character of a text; None if no log-probabilities are.
    echo: whether each text begins with its prompt.
    stream: whether texts are sent as they are written. include_usage: whether the numbers of characters follow then.
    """

    model: ServedModel
    prompts: tuple[str, ...]
    max_tokens: int
    sampling: SamplingSettings
    n: int
    stop: tuple[str, ...]
    logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool

    @property
    def texts(self) -> int:
        """How many texts are asked for."""
        return self.n * len(self.prompts)


def read_request(content: object, registry: ModelRegistry) -> CompletionRequest:
    """Return the request that the JSON of a body describes. Raises CompletionError if anything is wrong with it."""
    if not isinstance(content, dict):
        raise CompletionError("the body must be a JSON object")
    values = _read_fields(content)
    sampling = SamplingSettings(values["temperature"], values["top_k"], values["top_p"], values["seed"])
    request = CompletionRequest(
        model=_find_model(registry, values["model"]),
        prompts=values["prompt"],
        sampling=sampling,
        include_usage=values["stream_options"],
        **{name: values[name] for name in ("max_tokens", "n", "stop", "logprobs", "echo", "stream")},
    )
    _check_size(request)
    return request


def _find_model(registry: ModelRegistry, name: str) -> ServedModel:
    try:
        return registry[name]
    except RequestError as error:
        raise CompletionError(str(error), "model", 404, "model_not_found") from None


def _read_fields(content: Mapping[str, Any]) -> Json:
    """Return the value of each field of FIELDS, checked; null stands for a field's default, as OpenAI has it."""
    for name, value in content.items():
        if name in NEUTRAL:
            if value is not None and value not in NEUTRAL[name]:
                raise CompletionError(f"{name} is {show(value)}, and is not offered here: leave it out", name)
        elif name not in FIELDS and name not in IGNORED:
            similar = nearest(name[:100], FIELDS)
            hint = f"did you mean {similar}?" if similar else f"choose from {', '.join(FIELDS)}"
            raise CompletionError(f"there is no argument {show(name)} here; {hint}", name[:100])
    values: Json = {}
    for name, (default, check) in FIELDS.items():
        value = content.get(name)
        try:
            values[name] = default if value is None else check(name, value)
        except RequestError as error:
            raise CompletionError(str(error), name) from None
    return values


def _check_size(request: CompletionRequest) -> None:
    """Refuse more work than one request of the page may cause, see `charlm.web.answers.write`."""
    texts, read = request.texts, sum(map(len, request.prompts))
    for param, size, most, what in (
        ("n", texts, MOST_SAMPLES, "texts (n for each prompt)"),
        ("max_tokens", texts * request.max_tokens, LONGEST_TEXT, "characters to write (max_tokens for each text)"),
        ("prompt", request.n * read, LONGEST_PROMPT, "characters to read (each prompt n times)"),
    ):
        if size > most:
            raise CompletionError(f"this asks for {size:,} {what}; at most {most:,} are allowed", param)
    told = texts * request.max_tokens + (request.n * read if request.echo else 0)
    if request.logprobs is not None and told > LONGEST_INSPECTED:
        raise CompletionError(
            f"this asks for the log-probabilities of {told:,} characters; at most {LONGEST_INSPECTED:,} are allowed",
            "logprobs",
        )


def _whole(low: int, high: int) -> Callable[[str, object], int]:
    return lambda name, value: check_whole(name, value, low, high)


def _number(low: float, high: float) -> Callable[[str, object], float]:
    return lambda name, value: check_number(name, value, low, high)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{name} is {show(value)}; it must be true or false")
    return value


def _read_prompts(name: str, value: object) -> tuple[str, ...]:
    prompts = [value] if isinstance(value, str) else value
    if not isinstance(prompts, list) or not prompts or not all(isinstance(each, str) for each in prompts):
        raise RequestError(f"{name} is {show(value)}; it must be a string or a list of strings, since no ids are taken")
    return tuple(check_text(name, each, LONGEST_PROMPT) for each in prompts)


def _read_stream_options(name: str, value: object) -> bool:
    """Return whether the numbers of characters are asked for."""
    if not isinstance(value, dict) or not value.keys() <= {"include_usage"}:
        raise RequestError(f"{name} is {show(value)}; it must be an object with include_usage")
    return _flag("include_usage", value.get("include_usage", False))


# Each field with its default and its check. top_k is not OpenAI's; other servers have it under this name.
FIELDS: dict[str, tuple[Any, Callable[[str, object], Any]]] = {
    "model": ("", lambda name, value: check_text(name, value, LONGEST_MODEL_NAME)),
    "prompt": (("",), _read_prompts),
    "max_tokens": (DEFAULT_TOKENS, _whole(0, LONGEST_TEXT)),
    "temperature": (1.0, _number(0, HIGHEST_TEMPERATURE)),
    "top_p": (1.0, _number(0, 1)),
    "top_k": (0, _whole(0, LARGEST_TOP_K)),
    "n": (1, _whole(1, MOST_SAMPLES)),
    "stop": ((), lambda _, value: check_stops(value)),
    "seed": (None, _whole(0, LARGEST_SEED)),
    "logprobs": (None, _whole(0, SHOWN_SYMBOLS)),
    "echo": (False, _flag),
    "stream": (False, _flag),
    "stream_options": (False, _read_stream_options),
}
# OpenAI's fields that are not offered, each with the values that change nothing.
NEUTRAL: dict[str, list[Any]] = {
    "best_of": [1],
    "frequency_penalty": [0],
    "logit_bias": [{}],
    "presence_penalty": [0],
    "suffix": [""],
}
IGNORED = {"user"}


class Choice:
    """One text of a completion while it is written; see `Completion`."""

    def __init__(self, request: CompletionRequest, index: int) -> None:
        """index: among the texts of a request: those of the first prompt, then those of the second, and so on."""
        self._lm, self._request, self._index = request.model.lm, request, index
        prompt, sample = divmod(index, request.n)
        self.prompt, self._skipped = self._lm.vocab.keep_known(request.prompts[prompt])
        self.written = 0  # characters, without the prompt
        settings = replace(request.sampling, seed=request.sampling.seed + sample)
        self._seed = settings.seed
        possible = [stop for stop in request.stop if not self._lm.vocab.encode_known(stop)[1]]
        self.pieces = self._lm.stream_scored(self.prompt, request.max_tokens, settings, stop=possible)
        self._predictions: PredictionReader | None = None

    def echo(self) -> Json:
        """Return the first part, the prompt."""
        logprobs = None
        if self._request.logprobs is not None and self.prompt:
            first, rest = self.prompt[:1], self.prompt[1:]
            self._predictions = PredictionReader(self._lm.engine, self._lm.vocab.encode(first))
            unpredicted = {"tokens": [first], "token_logprobs": [None], "top_logprobs": [None], "text_offset": [0]}
            logprobs = _join_logprobs([unpredicted, self._tell(rest, 1)])
        return self._part(self.prompt, logprobs)

    def add(self, text: str, *, ends: bool) -> Json:
        """Return a part with what was written. ends: whether it is the last."""
        logprobs = None
        if self._request.logprobs is not None:
            logprobs = self._tell(text, len(self.prompt) + self.written)
        self.written += len(text)
        return self._part(text, logprobs, ends=ends)

    def _part(self, text: str, logprobs: Json | None, *, ends: bool = False) -> Json:
        """Return a part of a choice in OpenAI's form, and with it the seed and the first symbols that were skipped."""
        reason = "stop" if self.written < self._request.max_tokens else "length"
        return {
            "index": self._index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason if ends else None,
            "seed": self._seed,
            "skipped": self._skipped[:LONGEST_SKIPPED],
        }

    def _tell(self, text: str, offset: int) -> Json:
        """Return the log-probabilities of a text, in nats. offset: how many characters precede it."""
        symbols, ids = self._lm.vocab.symbols, self._lm.vocab.encode(text)
        if self._predictions is None:
            context = self._lm.vocab.encode(self.prompt or self._lm.config.start)
            self._predictions = PredictionReader(self._lm.engine, context)
        chosen, likeliest, log_probs = self._predictions.read(ids)
        count = self._request.logprobs
        named = [
            {symbols[id]: log_prob for id, log_prob in zip(ids[:count], those[:count], strict=True)}
            for ids, those in zip(likeliest.tolist(), log_probs.tolist(), strict=True)
        ]
        own = chosen.tolist()
        return {
            "tokens": list(text),
            "token_logprobs": own,
            "top_logprobs": [most | {symbol: one} for most, symbol, one in zip(named, text, own, strict=True)],
            "text_offset": list(range(offset, offset + len(text))),
        }


class Completion:
    """The texts that answer a request, written side by side.

    The seed of the texts of a prompt is that of the request, then each time one more, so that each can be had alone.
    """

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._choices = [Choice(request, index) for index in range(request.texts)]
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model.name,
        }

    def write(self) -> Iterator[list[Json]]:
        """Yield parts of the texts, in OpenAI's form of a choice, whenever there is something new."""
        with ExitStack() as closing:  # a client that leaves in the middle ends all streams
            for choice in self._choices:
                closing.callback(choice.pieces.close)
            if self._request.echo:
                yield [choice.echo() for choice in self._choices]
            for update in gather_updates(read_in_turns([choice.pieces for choice in self._choices])):
                new = {number: "" for number, _ in update}
                for number, piece in update:
                    new[number] += piece[0] if piece else ""
                ended = {number for number, piece in update if piece is None}
                yield [self._choices[number].add(text, ends=number in ended) for number, text in new.items()]

    def chunk(self, part: Json) -> Json:
        """Return what a stream sends for a part."""
        return {**self._head, "choices": [part]}

    def last_chunk(self) -> Json:
        """Return what a stream sends at its end about the numbers of characters."""
        return {**self._head, "choices": [], "usage": self._usage()}

    def whole(self, parts: Sequence[Json]) -> Json:
        """Return the answer that is not streamed, from all parts of `write`."""
        texts = [[part for part in parts if part["index"] == index] for index in range(len(self._choices))]
        return {**self._head, "choices": [_join(each) for each in texts], "usage": self._usage()}

    def _usage(self) -> Json:
        read = sum(len(choice.prompt) for choice in self._choices[:: self._request.n])
        written = sum(choice.written for choice in self._choices)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def write_body(request: CompletionRequest) -> Iterator[bytes]:
    """Write the texts; yield the body of the answer: server-sent events in pieces, or JSON at the end.

    Pieces may be empty: between any two a caller may close the iterator, which ends the texts.
    """
    completion, kept = Completion(request), list[Json]()
    for parts in completion.write():
        if request.stream:
            yield b"".join(event(completion.chunk(part)) for part in parts)
        else:
            kept += parts
            yield b""
    if not request.stream:
        yield orjson.dumps(completion.whole(kept))
        return
    if request.include_usage:
        yield event(completion.last_chunk())
    yield b"data: [DONE]\n\n"


def event(content: Json) -> bytes:
    """Return a server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _join(parts: Sequence[Json]) -> Json:
    """Return a whole choice from its parts."""
    logprobs = _join_logprobs([part["logprobs"] for part in parts if part["logprobs"] is not None])
    return parts[-1] | {"text": "".join(part["text"] for part in parts), "logprobs": logprobs}


def _join_logprobs(parts: Sequence[Json]) -> Json | None:
    """Return the log-probabilities of a text from those of its parts; None if there are none."""
    return {name: [one for part in parts for one in part[name]] for name in parts[0]} if parts else None
