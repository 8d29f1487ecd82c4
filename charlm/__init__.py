"""charlm: character-level language models to train, publish and show.

from charlm import CharLM

lm = CharLM.from_pretrained("user/shakespeare-lstm")  # or a folder
print(lm.generate("ROMEO:", length=500, temperature=0.8, seed=7))
"""

from typing import TYPE_CHECKING, Any

from charlm.errors import (
    CharLMError,
    HubError,
    HubUnavailableError,
    MissingPackageError,
    ModelFileError,
    RequestError,
    TrainingError,
    VocabError,
)

if TYPE_CHECKING:
    from charlm.lm import CharLM

__version__ = "0.1.0"
__all__ = [
    "CharLM",
    "CharLMError",
    "HubError",
    "HubUnavailableError",
    "MissingPackageError",
    "ModelFileError",
    "RequestError",
    "TrainingError",
    "VocabError",
]


def __getattr__(name: str) -> Any:
    # CharLM imports numpy: it is loaded at its first use, so that `import charlm` takes no time.
    if name == "CharLM":
        from charlm.lm import CharLM

        return CharLM
    raise AttributeError(f"module 'charlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})  # with CharLM before its first use, so that tab completion offers it
