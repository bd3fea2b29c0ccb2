"""Label Studio's export of audio tasks: JSON, and JSON-MIN.

A region is a row, with a column for each control that says something of it; what is said of the whole task stands in
each row. Source: https://labelstud.io/guide/export and https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ser_batch.formats import is_named_as_audio

Row = dict[str, Any]
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts in front of an uploaded file's name."""


def from_tasks(tasks: Sequence[dict[str, Any]]) -> tuple[list[Row], list[Sequence[str]]]:
    """The rows of tasks as JSON has them, and what their audio may be called."""
    rows: list[Row] = []
    media: list[Sequence[str]] = []
    for task in tasks:
        names = _media(task["data"])
        done = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
        for annotation in done or [{}]:
            for region, columns in _regions(annotation.get("result") or ()):
                key = "/".join(str(part) for part in (task.get("id"), region or annotation.get("id")) if part)
                rows.append({"id": key or None, **columns, "annotator": _annotator(annotation)})
                media.append(names)
    return rows, media


def _annotator(annotation: dict[str, Any]) -> str | None:
    who = annotation.get("completed_by")
    who = (who.get("email") or who.get("id")) if isinstance(who, dict) else who
    return None if who is None else str(who)


def _regions(results: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Row]]:
    """(id, columns) of each region; of an annotation without any, what is said of the whole."""
    whole: Row = {}
    regions: dict[str, Row] = {}
    for result in results:
        value = result.get("value") or {}
        columns = whole
        if "start" in value and "end" in value:
            columns = regions.setdefault(str(result.get("id")), {"start": value["start"], "end": value["end"]})
            if value.get("channel") is not None:
                columns["channel"] = value["channel"]
        name, said = _said(result, value)
        if name is not None:
            columns[name] = said
    if regions:
        yield from ((region, whole | columns) for region, columns in regions.items())
    else:
        yield "", {"start": None, "end": None, **whole}


def _said(result: dict[str, Any], value: dict[str, Any]) -> tuple[str | None, str | None]:
    """Name and content of the column that a control makes."""
    kind = str(result.get("type"))
    said = value.get(kind, value.get("text" if kind == "textarea" else kind))
    if said is None:
        return None, None
    texts = said if isinstance(said, list) else [said]
    name = {"labels": "label", "textarea": "text"}.get(kind) or str(result.get("from_name"))
    return ("given" if name in ("start", "end") else name), ",".join(str(text) for text in texts)


def from_small_tasks(tasks: Sequence[dict[str, Any]]) -> tuple[list[Row], list[Sequence[str]]]:
    """The rows of tasks as JSON-MIN has them: a key for each control, with its regions or what it says."""
    rows: list[Row] = []
    media: list[Sequence[str]] = []
    ours = ("annotation_id", "annotator", "created_at", "updated_at", "lead_time", "id")
    for task in tasks:
        names = _media(task)
        controls = {name: value for name, value in task.items() if name not in ours and value not in names}
        lists = {name: value for name, value in controls.items() if _is_regions(value)}
        whole = {name: _flat(value) for name, value in controls.items() if name not in lists}
        regions = [
            {"start": each["start"], "end": each["end"], "label": _flat(each.get("labels"))}
            for value in lists.values()
            for each in value
        ] or [{"start": None, "end": None}]
        for number, region in enumerate(regions):
            key = f"{task.get('id')}/{task.get('annotation_id')}/{number}"
            rows.append({"id": key, **whole, **region, "annotator": str(task.get("annotator"))})
            media.append(names)
    return rows, media


def _is_regions(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) and "start" in x for x in value)


def _flat(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("choices") or value.get("text") or list(value.values())
    return None if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _media(data: dict[str, Any]) -> Sequence[str]:
    """What the audio of a task may be called: its URL, the file that the server has, the one that was uploaded."""
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    url = next((value for name, value in texts.items() if name.lower() == "audio"), None)
    url = url or next((value for value in texts.values() if is_named_as_audio(urlsplit(value).path)), "")
    parts = urlsplit(url)
    names = [url, *parse_qs(parts.query).get("d", [])]
    if parts.path:
        base = unquote(parts.path).rpartition("/")[2]
        names += [base, UPLOADED.sub("", base)]
    return [name for name in dict.fromkeys(names) if name]
