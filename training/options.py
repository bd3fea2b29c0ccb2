"""Options and their types that the commands of `ser-train` share."""

from __future__ import annotations

from pathlib import Path

import click


def label_names(given: str | None) -> tuple[str, ...] | None:
    """The names of "a,b,c"; None where nothing is given."""
    return tuple(label.strip() for label in given.split(",")) if given else None


class Numbers(click.ParamType):
    """Whole numbers such as "0,1,2" or "0-4"."""

    name = "numbers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The numbers in the order given; a usage error for anything else."""
        if isinstance(value, list):
            return value
        found = []
        for part in str(value).split(","):
            first, dash, last = part.strip().partition("-")
            last = last if dash else first
            if not first.isdecimal() or not last.isdecimal() or int(first) > int(last):
                self.fail(f"{value!r} is not a list of numbers such as 0,1,2 or 0-4", param, ctx)
            found += range(int(first), int(last) + 1)
        return found


NUMBERS = Numbers()
PATH = click.Path(path_type=Path)
FOLDER = click.Path(path_type=Path, file_okay=False)
PROTOCOLS = click.Choice(["paper", "emobox", "sentence", "given"])
