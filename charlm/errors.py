"""The errors that charlm raises on purpose; each message says what is wrong and what to do instead."""

from typing import Literal


class CharLMError(Exception):
    """The base of every error that a user's input, file or network can cause.

    `exit_status` is what the commands return for it: 2 if the request has to change, 1 if the same request may succeed
    later.
    """

    exit_status = 2


class RequestError(CharLMError):
    """An argument, a setting or a text is outside what is allowed."""


class VocabError(CharLMError):
    """A text holds a symbol that the model's vocabulary does not."""


class ModelFileError(CharLMError):
    """A file of a model folder is missing, damaged, or describes an impossible model."""


class HubError(CharLMError):
    """The Hub refused: no such repository, revision or file, no access, or no valid token."""


class HubUnavailableError(HubError):
    """The Hub gave no usable answer, and the cache has no copy to use instead."""

    exit_status = 1


class SpaceRefusedError(HubError):
    """The Hub does not make a Space, or does not give it the hardware that was asked for.

    status: of its answer. said: its reason.
    """

    def __init__(self, status: int, said: str) -> None:
        super().__init__(status, said)  # so that it can be pickled
        self.status, self.said = status, said

    def __str__(self) -> str:
        """Return what is refused, and why."""
        return f"the Hub refuses this Space ({self.status}: {self.said})"


class MissingPackageError(CharLMError):
    """A package that an extra of charlm brings, such as torch, is not installed."""


class TrainingError(CharLMError):
    """A training run cannot go on, for example because its loss is no longer a number.

    problem: what has happened. advice: what whoever gave the command can do; the message is both.
    reason: `diverged`, or `disk` if a file cannot be written, for a program that has other advice.
    """

    exit_status = 1

    def __init__(self, problem: str, advice: str, reason: Literal["diverged", "disk"]) -> None:
        super().__init__(problem, advice, reason)  # so that it can be pickled
        self.problem, self.advice, self.reason = problem, advice, reason

    def __str__(self) -> str:
        """Return the problem and the advice."""
        return f"{self.problem}; {self.advice}"
