from __future__ import annotations

import threading
from pathlib import Path

import pytest
from test_audio import RULE, write

import ser_batch.decode
from ser_batch.decode import ABSENT, decode, decode_all, source_version
from ser_batch.sources import Source, find_audio


def sources(folder: Path, count: int) -> list[Source]:
    folder.mkdir(exist_ok=True)
    for index in range(count):
        if index % 5 == 3:
            (folder / f"{index:03}.wav").write_bytes(b"no audio")
        else:
            write(folder / f"{index:03}.wav", 0.1 + 0.01 * index)
    return find_audio([folder])


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_the_order_is_that_of_the_sources(tmp_path: Path, workers: int, ahead: int) -> None:
    listed = sources(tmp_path, 12)
    results = list(decode_all(listed, RULE, workers=workers, ahead=ahead))
    assert [done.source for done in results] == listed
    assert [done.error is not None for done in results] == [index % 5 == 3 for index in range(12)]
    assert all((done.clip is None) == (done.error is not None) for done in results)


def test_no_more_than_the_bound_is_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    lock = threading.Lock()

    def counted(source: Source, rule: object) -> object:
        with lock:
            started.append(source.file)
        return decode(source, RULE)

    monkeypatch.setattr(ser_batch.decode, "decode", counted)
    results = decode_all(sources(tmp_path, 20), RULE, workers=4, ahead=5)
    for taken in range(1, 4):
        next(results)
        assert len(started) <= taken - 1 + 5
    results.close()
    assert len(started) < 20


def test_a_surprise_in_one_file_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str, rule: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(ser_batch.decode, "read_clip", fail)
    (done,) = [decode(source, RULE) for source in sources(tmp_path, 1)]
    assert done.clip is None
    assert done.error == "unexpected MemoryError: MemoryError('no room')"


def test_the_version_changes_with_the_input(tmp_path: Path) -> None:
    (source,) = sources(tmp_path, 1)
    before = source_version(source)
    write(Path(source.path), 0.5)
    assert source_version(source) != before
    Path(source.path).unlink()
    assert source_version(source) == ABSENT
