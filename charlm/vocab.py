"""The symbols of a model and their ids. A symbol is one Unicode code point."""

import numpy as np
from numpy.typing import NDArray

from charlm.errors import RequestError, VocabError
from charlm.messages import show

Ids = NDArray[np.int64]

NO_ID = -1  # of a symbol that is not in the vocabulary


class Vocab:
    """A fixed set of symbols; the id of a symbol is its place in `symbols`."""

    def __init__(self, symbols: str) -> None:
        """symbols: every symbol once, in id order. Raises VocabError if it is empty or repeats one."""
        if not symbols:
            raise VocabError("a vocabulary needs at least one symbol")
        codes = _code_points(symbols)
        order = np.argsort(codes, kind="stable")
        if (np.diff(codes[order]) == 0).any():
            raise VocabError("a vocabulary must hold each symbol once; this one repeats a symbol")
        self.symbols = symbols
        self._codes = codes
        self._sorted_codes = codes[order]
        self._sorted_ids = order.astype(np.int64)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: str) -> bool:
        return len(symbol) == 1 and symbol in self.symbols

    def ids_of(self, symbols: str) -> Ids:
        """Return the id of each symbol, (N,); NO_ID for one that is not in the vocabulary."""
        codes = _code_points(symbols)
        places = np.minimum(np.searchsorted(self._sorted_codes, codes), len(self) - 1)
        return np.where(self._sorted_codes[places] == codes, self._sorted_ids[places], NO_ID)

    def encode(self, text: str) -> Ids:
        """Return the ids (N,) of a text. Raises VocabError, naming the first symbol that has none."""
        ids = self.ids_of(text)
        if len(ids) and ids.min() == NO_ID:
            place = int(np.argmax(ids == NO_ID))
            raise VocabError(
                f"{text[place]!r} (character {place + 1}) is not among this model's {len(self)} symbols; "
                "leave it out or train on a text that has it"
            )
        return ids

    def encode_known(self, text: str) -> tuple[Ids, str]:
        """Return the ids of the symbols that have one, and all other symbols in order, repeats included."""
        ids = self.ids_of(text)
        skipped = "".join(text[place] for place in np.flatnonzero(ids == NO_ID))
        return ids[ids != NO_ID], skipped

    def keep_known(self, text: str) -> tuple[str, str]:
        """Return the text without the symbols that have no id, and the distinct symbols left out, in order."""
        ids, skipped = self.encode_known(text)
        return self.decode(ids), "".join(dict.fromkeys(skipped))

    def decode(self, ids: Ids) -> str:
        """Return the text (N characters) of ids (N,). Raises RequestError for what are no ids of this vocabulary."""
        return self._codes[self.check_ids(ids)].astype("<u4").tobytes().decode("utf-32-le")

    def check_ids(self, ids: object) -> Ids:
        """Return ids (N,) of this vocabulary. Raises RequestError for anything else."""
        try:
            array = np.asarray(ids)
        except (ValueError, TypeError, RuntimeError):  # rows of different lengths, or a tensor on a GPU
            array = np.zeros((0, 0))
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise RequestError(
                f"ids are {show(ids)}; give an array of whole numbers in one dimension, as Vocab.encode returns it"
            )
        if array.size and not 0 <= array.min() <= array.max() < len(self):
            wrong = array[(array < 0) | (array >= len(self))][0]
            raise RequestError(f"{wrong} is none of this model's ids, which are from 0 to {len(self) - 1}")
        return array.astype(np.int64, copy=False)


def _code_points(text: str) -> NDArray[np.uint32]:
    # surrogatepass: a lone surrogate is encoded too, as a symbol that no vocabulary has
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
