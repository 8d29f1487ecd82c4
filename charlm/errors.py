"""The errors that charlm raises on purpose; each message says what is wrong and what to do instead."""


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
        super().__init__(f"the Hub refuses this Space ({status}: {said})")
        self.status, self.said = status, said


class MissingPackageError(CharLMError):
    """A package that an extra of charlm brings, such as torch, is not installed."""


class TrainingError(CharLMError):
    """A training run cannot go on, for example because its loss is no longer a number."""

    exit_status = 1
