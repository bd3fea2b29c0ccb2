"""Names and versions of recordings in object stores: the only file that lists buckets."""

from __future__ import annotations

import fnmatch
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from ser_batch.errors import InputError
from ser_batch.formats import ENDINGS, HEAD, OTHERS, ending_of, identify
from ser_batch.recordings.local import LeftOut, is_pattern
from ser_batch.recordings.recording import QUERIES
from ser_batch.storage.bucket import Bucket, Found, Version, locate
from ser_batch.storage.urls import parse_url


class Objects(NamedTuple):
    """The recordings below a URL, in the order of their names, byte by byte."""

    base: str
    names: list[bytes]
    """Relative to `base`."""
    sizes: array[int]
    times: array[int]
    """Modification times in ns."""


def find_objects(url: str, left_out: LeftOut) -> Objects:
    """List the recordings that a URL stands for: an object, all below a prefix, or a glob (`s3://b/a/**/*.wav`).

    The rules are those of folders: by ending or by content, nothing that starts with a dot nor below such a folder.

    Args:
        left_out: counts the objects that are not taken.

    Raises:
        InputError: there is nothing of that name.
        StoreError: the store serves nothing of this bucket.
    """
    bucket, key = locate(url)
    root = parse_url(url)
    found = None if key.endswith("/") else bucket.find(key)
    if found is not None and not found.is_folder:
        folder, _, _ = key.rpartition("/")
        return _sorted(str(root._replace(key=folder)), folder, [found])
    if is_pattern(key) and found is None and not key.endswith("/"):
        fixed, pattern = _split(bucket, key)
        return _sorted(str(root._replace(key=fixed)), fixed, _matching(bucket, fixed, pattern, left_out))
    key = key.strip("/")
    below = [each for each in bucket.listing(key, recursive=True) if _is_visible(each, key)]
    found_below = _recordings(bucket, below, left_out)
    if not found_below and found is None and bucket.find(key) is None:
        raise InputError(f"{url!r} does not exist", remedy="Check the bucket and the prefix.")
    return _sorted(str(root._replace(key=key)), key, found_below)


def matching_objects(url: str) -> list[str]:
    """URLs of the objects that a glob matches, whatever their endings, in the order of their names."""
    bucket, key = locate(url)
    fixed, pattern = _split(bucket, key)
    keys = sorted(each.key for each in _expand(bucket, fixed, pattern.split("/")))
    return [str(parse_url(url)._replace(key=key)) for key in keys]


def _split(bucket: Bucket, key: str) -> tuple[str, str]:
    """The folders of a pattern before the first wildcard, and the rest; brackets in a prefix that is there are none."""
    parts = key.split("/")
    first = next(
        number
        for number, part in enumerate(parts)
        if is_pattern(part) and (number == len(parts) - 1 or bucket.find("/".join(parts[: number + 1])) is None)
    )
    return "/".join(parts[:first]), "/".join(parts[first:])


def _matching(bucket: Bucket, fixed: str, pattern: str, left_out: LeftOut) -> Iterable[Found]:
    """As with folders: what is audio, or whatever the pattern names the ending of."""
    _, dot, ending = pattern.rpartition("/")[2].rpartition(".")
    matching = _expand(bucket, fixed, pattern.split("/"))
    return matching if dot and not is_pattern(ending) else _recordings(bucket, list(matching), left_out)


def _recordings(bucket: Bucket, found: list[Found], left_out: LeftOut) -> list[Found]:
    """Those that are recordings by their endings or, where these say nothing, by their first bytes."""
    unsure = [each for each in found if ending_of(each.key) not in ENDINGS | OTHERS]
    with ThreadPoolExecutor(QUERIES) as threads:
        heard = dict(
            zip((each.key for each in unsure), threads.map(partial(_holds_audio, bucket), unsure), strict=True)
        )
    taken = [each for each in found if ending_of(each.key) in ENDINGS or heard.get(each.key)]
    left_out.update(Counter(map(ending_of, {each.key for each in found} - {each.key for each in taken})))
    return taken


def _holds_audio(bucket: Bucket, found: Found) -> bool:
    try:
        with bucket.open(found.key) as file:
            return bool(identify(bucket.attempt(found.key, lambda: file.read_at(min(HEAD, found.version[0]), 0))))
    except OSError:
        return False


def _expand(bucket: Bucket, folder: str, parts: list[str]) -> Iterator[Found]:
    """Objects below `folder` that match a pattern a level; levels without `**` are listed one by one."""
    if parts[0] == "**":
        for each in bucket.listing(folder, recursive=True):
            if not each.is_folder and _matches(_below(each.key, folder).split("/"), parts):
                yield each
    elif len(parts) > 1 and not is_pattern(parts[0]):
        yield from _expand(bucket, f"{folder}/{parts[0]}".lstrip("/"), parts[1:])
    else:
        for each in bucket.listing(folder, recursive=False):
            if each.is_folder == (len(parts) > 1) and _fits(_below(each.key, folder), parts[0]):
                if each.is_folder:
                    yield from _expand(bucket, each.key, parts[1:])
                else:
                    yield each


def _matches(names: list[str], parts: list[str]) -> bool:
    """Whether a path matches a pattern, level by level; `**` is any number of levels that are not hidden."""
    if not parts:
        return not names
    if parts[0] == "**":
        deeper = bool(names) and not names[0].startswith(".") and _matches(names[1:], parts)
        return deeper or _matches(names, parts[1:])
    return bool(names) and _fits(names[0], parts[0]) and _matches(names[1:], parts[1:])


def _fits(name: str, pattern: str) -> bool:
    """Whether a name matches one level of a pattern; wildcards match no dot at the start."""
    return fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _is_visible(found: Found, prefix: str) -> bool:
    if found.is_folder:
        return False
    return not any(part.startswith(".") for part in _below(found.key, prefix).split("/"))


def _below(key: str, prefix: str) -> str:
    return key[len(prefix) + 1 :] if prefix else key


def _sorted(base: str, prefix: str, found: Iterable[Found]) -> Objects:
    """Names in order, with their versions beside them, a name and two numbers each."""
    names: list[bytes] = []
    versions: list[Version] = []
    for each in found:
        names.append(_below(each.key, prefix).encode())
        versions.append(each.version)
    order = sorted(range(len(names)), key=names.__getitem__)
    sizes, times = (array("q", [versions[number][part] for number in order]) for part in (0, 1))
    return Objects(base, [names[number] for number in order], sizes, times)
