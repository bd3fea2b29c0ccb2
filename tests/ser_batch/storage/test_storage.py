"""Buckets over a folder of this disk, and over one that fails on purpose; real servers are in tests/object_stores."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

import ser_batch.storage.bucket
from ser_batch.command_line import environment
from ser_batch.errors import InputError, StoreError
from ser_batch.storage.bucket import PATIENCE, Bucket, locate
from ser_batch.storage.connection import connect, no_such_folder
from ser_batch.storage.objects import KEPT, WHOLE, ObjectFile, is_prefix, object_version, open_object, readable
from ser_batch.storage.urls import ObjectUrl, is_url, join, parse_url, split
from support.failing_store import AWAY, Failing

REFUSED = "AWS Error INVALID_ACCESS_KEY_ID during ListObjectsV2 operation:  (Request ID: tx1)"
GOOGLE = "google::cloud::Status(NOT_FOUND: Permanent error … gcloud-cpp.retry.function=ListObjects)"


@pytest.fixture
def disk(tmp_path: Path) -> fs.FileSystem:
    """A store with one bucket, "b", which is a folder."""
    (tmp_path / "b").mkdir()
    return fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses take no time, and are written down."""
    pauses: list[float] = []
    monkeypatch.setattr("ser_batch.storage.bucket.time.sleep", pauses.append)
    return pauses


@pytest.fixture
def stored(disk: fs.FileSystem, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket, reached through URLs."""
    bucket = Bucket("s3", "b", disk)
    monkeypatch.setattr(ser_batch.storage.bucket, "open_bucket", lambda scheme, name: bucket)
    return bucket


def test_urls_are_taken_apart_and_nothing_in_them_is_escaped() -> None:
    assert parse_url("s3://b/a b/%20#?.wav") == ObjectUrl("s3", "b", "a b/%20#?.wav")
    assert str(parse_url("gs://b")) == "gs://b"
    assert [is_url(path) for path in ("s3://b", "s3:/b", "/s3://b", Path("s3://b"))] == [True, False, False, False]
    assert split("s3://b/a/x.csv") == ("s3://b/a", "x.csv")
    assert split("s3://b/x.csv") == ("s3://b", "x.csv")
    assert split("a/x.csv") == ("a", "x.csv")
    with pytest.raises(InputError, match="names no bucket"):
        parse_url("s3:///a")


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [
        ("s3://b/a", "x.wav", "s3://b/a/x.wav"),
        ("s3://b", "x.wav", "s3://b/x.wav"),
        ("s3://b/a", "../x.wav", "s3://b/x.wav"),
        ("s3://b/a", "gs://c/x.wav", "gs://c/x.wav"),
        ("a", "s3://b/x.wav", "s3://b/x.wav"),
        ("s3://b/a", "/disk/x.wav", "/disk/x.wav"),
        ("a", "x.wav", "a/x.wav"),
        ("", "x.wav", "x.wav"),
    ],
)
def test_names_are_seen_from_their_table(folder: str, name: str, path: str) -> None:
    assert join(folder, name) == path


def test_an_object_goes_up_whole_and_comes_back(stored: Bucket, tmp_path: Path) -> None:
    (tmp_path / "b" / "a").mkdir()  # which this disk wants, and a bucket does not
    content = bytes(range(256)) * 5
    stored.put("a/x", memoryview(content))
    assert stored.open("a/x").read() == content
    assert readable("s3://b/a/x").read() == content  # type: ignore[union-attr]
    assert readable("a/x") == "a/x"
    assert object_version("s3://b/a/x") == stored.find("a/x").version  # type: ignore[union-attr]
    assert object_version("s3://b/a/x")[1] % 1_000_000_000 == 0  # type: ignore[index]
    assert object_version("s3://b/a") is object_version("s3://b/nothing") is None
    assert is_prefix("s3://b/a")
    assert [found.key for found in stored.listing("", recursive=True) if not found.is_folder] == ["a/x"]
    assert list(stored.listing("nothing", recursive=True)) == []
    stored.delete("a/x")
    stored.delete("a/x")
    assert stored.find("a/x") is None
    stored.delete_folder("a")
    stored.delete_folder("a")
    assert list(stored.listing("", recursive=True)) == []


def test_what_may_pass_is_tried_again(disk: fs.FileSystem, no_waiting: list[float]) -> None:
    failing = Failing(disk, lambda number, _: AWAY if number < 4 else None)
    bucket = Bucket("s3", "b", failing)  # type: ignore[arg-type]
    assert bucket.find("") is not None
    assert (len(failing.requests), no_waiting) == (4, [0.5, 1.0, 2.0])


def test_a_store_that_stays_away_is_its_own_error_and_is_not_waited_for_twice(
    disk: fs.FileSystem, no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATIENCE, "0.6")
    bucket = Bucket("s3", "b", Failing(disk, lambda *_: AWAY))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=r"s3://b cannot be reached; got .*curlCode: 7"):
        bucket.open("x")
    waited = len(no_waiting)
    assert waited >= 1
    with pytest.raises(StoreError, match="cannot be reached"):
        bucket.put("x", memoryview(b"1"))
    assert len(no_waiting) == waited
    monkeypatch.setenv(PATIENCE, "soon")
    with pytest.raises(StoreError, match=PATIENCE):
        Bucket("s3", "b", Failing(disk, lambda *_: AWAY)).open("x")  # type: ignore[arg-type]


def test_one_object_that_fails_while_the_store_is_well_is_that_objects_failure(
    disk: fs.FileSystem, no_waiting: list[float]
) -> None:
    denied = "AWS Error ACCESS_DENIED during GetObject operation"
    bucket = Bucket("s3", "b", Failing(disk, lambda _, name: denied if name == "open_input_file" else None))  # type: ignore[arg-type]
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        bucket.open("x")
    with pytest.raises(FileNotFoundError):
        Bucket("s3", "b", disk).open("x")
    assert no_waiting == []


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (REFUSED, r"refuses access to s3://b; got AWS Error INVALID_ACCESS_KEY_ID .*operation\. .*AWS_ACCESS_KEY_ID"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation", "there is no bucket s3://b"),
        ("AWS Error UNKNOWN (HTTP status 301): PermanentRedirect", "another region"),
        (
            "Status(UNAVAILABLE: Could not create a OAuth2 access token to authenticate",
            "there are no credentials for s3://b",
        ),
        ("something else" * 100, "s3://b cannot be used; got something else.*…$"),
    ],
)
def test_a_store_that_serves_nothing_says_why(disk: fs.FileSystem, failure: str, message: str) -> None:
    bucket = Bucket("s3", "b", Failing(disk, lambda *_: failure))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=message):
        bucket.find("x")


def test_keys_that_may_read_and_not_list_are_no_reason_to_stop(disk: fs.FileSystem, tmp_path: Path) -> None:
    (tmp_path / "b" / "good").write_bytes(b"1")
    denied = "AWS Error ACCESS_DENIED during ListObjectsV2 operation"

    class Unlistable(Failing):
        def get_file_info(self, what: Any) -> Any:
            if isinstance(what, fs.FileSelector):
                raise OSError(denied)
            return disk.get_file_info(what)

    bucket = Bucket("s3", "b", Unlistable(disk, lambda *_: None))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="refuses access"):
        bucket.open("gone")
    bucket.open("good")
    with pytest.raises(FileNotFoundError):
        bucket.open("gone")


def test_a_large_object_is_read_by_blocks_of_which_few_are_kept(stored: Bucket, tmp_path: Path) -> None:
    content = bytes(range(251)) * 80_000
    (tmp_path / "b" / "x").write_bytes(content)
    assert len(content) > WHOLE
    with open_object("s3://b/x") as file:
        assert (file.seek(-10, io.SEEK_END), file.read(20)) == (len(content) - 10, content[-10:])
        file.seek(0)
        assert file.readall() == content
        assert len(file._blocks) == KEPT
        assert (file.seek(5), file.seek(2, io.SEEK_CUR), file.tell()) == (5, 7, 7)


def test_a_failed_read_ends_the_file_and_is_kept(disk: fs.FileSystem, tmp_path: Path) -> None:
    (tmp_path / "b" / "x").write_bytes(bytes(WHOLE + 1))
    with ObjectFile(Bucket("s3", "b", disk), "x") as file:
        assert len(file.read(10)) == 10
        (tmp_path / "b" / "x").write_bytes(b"")  # it shrinks while it is read
        file.seek(WHOLE)
        assert file.read(10) == b""
        assert "changed while it was read" in str(file.failure)


def test_the_environment_decides_how_stores_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
        monkeypatch.setenv(name, "when_supported")  # as it was given; restored afterwards
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def unknown(bucket: str) -> str:
        raise OSError(f"Bucket '{bucket}' not found")

    monkeypatch.setattr("ser_batch.storage.connection.fs.resolve_s3_region", unknown)
    with pytest.raises(StoreError, match=r"region of s3://b is not known.*AWS_REGION"):
        connect("s3", "b")
    monkeypatch.setattr("ser_batch.storage.connection.fs.resolve_s3_region", lambda bucket: "eu-central-1")
    assert connect("s3", "b").region == "eu-central-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert connect("s3", "b").region == "eu-west-1"
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert connect("s3", "b").region == "us-east-1"
    monkeypatch.setenv("GOOGLE_NO_SIGN_REQUEST", "true")
    assert isinstance(connect("gs", "b"), fs.GcsFileSystem)


def test_a_url_leads_to_its_bucket_and_key(stored: Bucket) -> None:
    assert locate("s3://b/a/x") == (stored, "a/x")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(2, "Path does not exist 'b/x'"), True),  # S3: nothing below the key
        (OSError("When listing … AWS Error NO_SUCH_BUCKET during ListObjectsV2"), False),
        (OSError("No such file or directory 'b/x'"), True),  # Google: nothing below the key
        (OSError("No such directory: b/x"), True),
        (OSError("Cannot use file 'b/x' as a directory"), True),
        (FileNotFoundError(2, GOOGLE), False),  # Google: no such bucket
    ],
)
def test_a_folder_that_is_not_there_is_told_from_a_bucket_that_is_not(error: OSError, expected: bool) -> None:
    assert no_such_folder(error) is expected


def test_commands_set_the_environment_and_the_library_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    before = dict(os.environ)
    connect("s3", "b")
    assert dict(os.environ) == before
    assert environment()["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert "AWS_REQUEST_CHECKSUM_CALCULATION" not in environment()
