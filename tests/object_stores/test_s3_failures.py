from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.storage.bucket import PATIENCE, open_bucket
from support.commands import run
from support.processes import finish, paused
from support.radosgw import Server, make_bucket
from support.recordings import sources
from support.stores import put_folder, table

pytestmark = pytest.mark.s3
RECORDINGS = 24


@pytest.fixture
def audio(bucket: str, tmp_path: Path) -> str:
    """A prefix of small recordings, some bad; the same files are in `tmp_path / "audio"`."""
    sources(tmp_path / "audio", RECORDINGS)
    put_folder(bucket, "audio", tmp_path / "audio")
    return f"s3://{bucket}/audio"


@pytest.fixture
def expected(audio: str, tmp_path: Path, toy_bundle: Bundle):  # type: ignore[no-untyped-def]
    out = f"{tmp_path}/whole.parquet"
    assert run(tmp_path / "audio", "--out", out, "--bundle", toy_bundle.root, "--quiet", "--batch-size", 1) == 3
    return table(out)


@pytest.fixture(autouse=True)
def new_connections() -> None:
    open_bucket.cache_clear()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "refuses access"),
        ("AWS_ACCESS_KEY_ID", "nobody", "refuses access"),
        ("AWS_NO_SIGN_REQUEST", "true", "refuses access"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_what_is_wrong_with_the_environment_is_said_before_any_work(
    audio: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv(PATIENCE, "0")
    assert run(audio, "--out", tmp_path / "out.parquet") == 2
    said = capsys.readouterr().err
    assert message in said
    assert "AWS_" in said or "endpoint" in said
    assert run(tmp_path / "audio", "--out", f"{audio}/out.parquet") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


def test_a_bucket_or_prefix_that_is_not_there(audio: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.parquet"
    assert run("s3://nowhere-at-all/audio", "--out", out) == 2
    assert "there is no bucket s3://nowhere-at-all" in capsys.readouterr().err
    assert run(f"{audio}/nothing", "--out", out) == 2
    assert "does not exist" in capsys.readouterr().err
    assert run(tmp_path / "audio", "--out", "s3://nowhere-at-all/out.parquet") == 2
    assert "there is no bucket s3://nowhere-at-all" in capsys.readouterr().err


def test_a_server_that_restarts_is_waited_for(
    server: Server, audio: str, expected: object, bucket: str, toy_bundle: Bundle
) -> None:
    out = f"s3://{bucket}/out.parquet"
    with paused(audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1) as process:
        server.kill()
        restarts = threading.Thread(target=lambda: (time.sleep(2), server.restart()))
        restarts.start()
        code, said = finish(process)
        restarts.join()
    assert (code, said.count("failed:")) == (3, 5), said
    assert table(out).equals(expected)


@pytest.mark.parametrize("to_store", [False, True])
def test_a_server_that_is_gone_ends_the_run_and_no_recording_fails(
    server: Server,
    audio: str,
    expected: object,
    bucket: str,
    toy_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to_store: bool,
) -> None:
    out = f"s3://{bucket}/out.parquet" if to_store else f"{tmp_path}/out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1)
    with monkeypatch.context() as patch:
        patch.setenv(PATIENCE, "3")
        with paused(*arguments) as process:
            server.kill()
            code, said = finish(process)
    try:
        assert code == 2
        assert "cannot be reached" in said
        assert "failed:" not in said
        assert "Traceback" not in said
    finally:
        server.restart()
    assert run(*arguments, "--resume", "--quiet") == 3
    assert table(out).equals(expected)


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_a_bucket_that_vanishes_ends_the_run(
    server: Server, audio: str, expected: object, bucket: str, toy_bundle: Bundle, tmp_path: Path, where: str
) -> None:
    make_bucket("results")
    out = "s3://results/out.parquet" if where == "outputs" else f"{tmp_path}/out.parquet"
    arguments = (audio, "--out", out, "--bundle", toy_bundle.root, "--batch-size", 1)
    gone = "results" if where == "outputs" else bucket
    with paused(*arguments) as process:
        server.admin("bucket", "rm", "--bucket", gone, "--purge-objects")
        code, said = finish(process)
    assert code == 2
    assert f"there is no bucket s3://{gone}" in said
    assert "Traceback" not in said
    make_bucket(gone)
    if where == "inputs":
        put_folder(bucket, "audio", tmp_path / "audio")
    assert run(*arguments, "--resume", "--quiet") == 3
    assert table(out).equals(expected)
