"""Where the audio of an annotation file is: what the file names, or else what is named like it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ser_batch.errors import InputError
from ser_batch.formats import is_named_as_audio
from ser_batch.recordings.local import walk
from ser_batch.storage.urls import is_url, join, local_path, split

LANGUAGE = re.compile(r"\.[a-z]{2,3}(-[A-Za-z]{2,4})?$")
"""What transcribers put behind a recording's name."""
NOT_FOUND = "has no audio file"


class Media:
    """Finds audio in a folder.

    Args:
        table: the annotation file.
        root: folder or URL to look in, and below; None: the folder of the file, not below it.
    """

    def __init__(self, table: str, root: str | None) -> None:
        self._table, self._folder, self._deep = table, split(table)[0] if root is None else root, root is not None
        self._names: dict[str, list[str]] | None = None
        self._found: dict[tuple[str, ...], tuple[str, str]] = {}

    def find(self, names: Sequence[str]) -> tuple[str, str]:
        """(path seen from the folder, "") of audio that may have these names; or (a name, why there is none).

        Args:
            names: as a file has them: paths, URLs, base names, with an ending or without; none: the file's own.
        """
        key = tuple(names)
        if key not in self._found:
            forms = (form for name in names for form in (local_path(name), unquote(local_path(name))))
            self._found[key] = self._find(list(dict.fromkeys(forms)) or _own_names(self._table))
        return self._found[key]

    def _find(self, names: Sequence[str]) -> tuple[str, str]:
        for name in names:
            if is_url(name) or (not is_url(self._folder) and os.path.isfile(join(self._folder, name))):  # noqa: PTH113
                return name.removeprefix("./"), ""
        listed = self._listed()
        for name in names:
            base = PurePosixPath(name.replace("\\", "/")).name
            # By the whole name, then by what differs in its ending only.
            alike = [each for each in listed.get(base, []) if PurePosixPath(each).name == base]
            alike = (
                alike
                or listed.get(base)
                or listed.get(PurePosixPath(base).stem if is_named_as_audio(base) else base)
                or []
            )
            if len(alike) == 1:
                return alike[0], ""
            if alike:
                return alike[0], f"has several audio files that it may be about; got {', '.join(sorted(alike)[:5])}"
        where = f"in {self._folder or os.curdir}"
        return names[0], f"{NOT_FOUND}; looked for {', '.join(names)} {where}. Name its folder: --root."

    def _listed(self) -> dict[str, list[str]]:
        """Audio files below the folder, by base name and by base name without ending."""
        if self._names is None:
            self._names = {}
            for name in self._below():
                path = PurePosixPath(name)
                for key in {path.name, path.stem}:
                    self._names.setdefault(key, []).append(name)
        return self._names

    def _below(self) -> Iterable[str]:
        if is_url(self._folder):
            from ser_batch.recordings.remote import find_objects

            try:
                names = [name.decode() for name in find_objects(self._folder, Counter()).names]
            except InputError:
                return []
            return names if self._deep else [name for name in names if "/" not in name]
        if self._deep:
            return walk(self._folder, Counter())
        try:
            return [name for name in os.listdir(self._folder or os.curdir) if is_named_as_audio(name)]  # noqa: PTH208
        except OSError:
            return []


def _own_names(table: str) -> list[str]:
    """What the audio of `call.wav.de.vtt` may be called: `call.wav.de`, `call.wav`, `call`."""
    name = split(table)[1]
    if name.lower().endswith((".gz", ".bz2", ".zst")):
        name = Path(name).stem
    names = [Path(name).stem]
    while is_named_as_audio(names[-1]) or LANGUAGE.search(names[-1]):
        names.append(Path(names[-1]).stem)
    return names
