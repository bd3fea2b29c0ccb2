"""Many names in little memory: a listing of a hundred thousand recordings in its own length plus 8 bytes a name."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator


class Names:
    """An immutable list of byte strings, held end to end in one."""

    def __init__(self, names: Iterable[bytes]) -> None:
        text = bytearray()
        self._ends = array("Q", [0])
        for name in names:
            text += name
            self._ends.append(len(text))
        self._text = bytes(text)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return self._text[self._ends[index] : self._ends[index + 1]]

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))
