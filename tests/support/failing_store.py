"""A file system whose requests fail on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyarrow import fs

AWAY = "AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not connect to server"


class Failing:
    """A file system that fails at the requests that `plan` says, counted from the first; every request is counted."""

    def __init__(self, files: fs.FileSystem, plan: Callable[[int, str], str | None]) -> None:
        self._files, self._plan = files, plan
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def request(*arguments: Any, **options: Any) -> Any:
            self.requests.append(name)
            if failure := self._plan(len(self.requests), name):
                raise OSError(failure)
            return getattr(self._files, name)(*arguments, **options)

        return request
