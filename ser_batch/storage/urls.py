"""Names of objects: `s3://bucket/folder/name.wav`, where what follows the bucket is the key as it is, not escaped."""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ser_batch.errors import InputError

SCHEMES = ("s3", "gs")


class ObjectUrl(NamedTuple):
    """Where an object is, or a prefix of objects."""

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}" if self.key else f"{self.scheme}://{self.bucket}"


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether `path` names something in an object store, and no file."""
    return isinstance(path, str) and path.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def parse_url(url: str) -> ObjectUrl:
    """Take a URL apart.

    Raises:
        InputError: it names no bucket.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in SCHEMES or not bucket:
        raise InputError(f"{url!r} names no bucket", expected="s3://BUCKET/KEY or gs://BUCKET/KEY")
    return ObjectUrl(scheme, bucket, key)


def join(folder: str, name: str) -> str:
    """`name` seen from `folder`, either of which may be a URL; an absolute name is what it is."""
    if is_url(name) or posixpath.isabs(name):
        return name
    if not is_url(folder):
        return os.path.join(folder, name)  # noqa: PTH118 — names need not be UTF-8
    url = parse_url(folder)
    key = posixpath.normpath(posixpath.join(url.key, name)) if ".." in name.split("/") else f"{url.key}/{name}"
    return str(url._replace(key=key.removeprefix("/")))


def split(path: str) -> tuple[str, str]:
    """The folder of an object or a file, and its name in it."""
    if not is_url(path):
        return os.path.split(path)
    url = parse_url(path)
    folder, _, name = url.key.rpartition("/")
    return str(url._replace(key=folder)), name


def local_path(name: str) -> str:
    """A path as this system writes it: of a `file:` URL its path, and no characters that it could not encode."""
    if name.lower().startswith("file:"):
        name = unquote(urlsplit(name).path)
    # Where the locale is ASCII, Python has the bytes of other characters as surrogates.
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))
