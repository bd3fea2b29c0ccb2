"""`ser_batch.load`, `Model` and `ser_batch.run`: from arrays, files, threads, event loops and scripts on stdin."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import ser_batch
from ser_batch.bundle.bundle import Bundle
from ser_batch.errors import AudioError, BundleError, EngineError, InputError
from support.commands import REPOSITORY
from support.recordings import sound, write


@pytest.fixture(scope="module")
def model(toy_bundle: Bundle) -> Iterator[ser_batch.Model]:
    with ser_batch.load(toy_bundle.root, backend="onnxruntime", threads=1) as opened:
        yield opened


def test_a_model_says_what_it_is(model: ser_batch.Model, toy_bundle: Bundle) -> None:
    assert model.labels == toy_bundle.labels and model.bundle_id == toy_bundle.id
    assert (model.sample_rate, model.clip_seconds) == (48_000, 3.0)
    assert model.branches == ("wav2vec2", "spectrogram") and model.runtime == "onnxruntime fp32, cpu"
    for part in (toy_bundle.id, "neutral, calm", "48000 Hz; 3 s", "wav2vec2, spectrogram", "onnxruntime fp32"):
        assert part in repr(model)


def test_an_array_scores_as_its_file_does(model: ser_batch.Model, tmp_path: Path) -> None:
    shapes = [(1, 2.0), (2, 4.0), (3, 7.5)]
    arrays = [
        (rate, (sound(seconds, rate, channels) * 2**15).astype(np.int16))
        for rate, (channels, seconds) in itertools.product((8_000, 16_000, 44_100, 48_000, 96_000), shapes)
    ]
    for number, (rate, x) in enumerate(arrays):
        soundfile.write(tmp_path / f"{number:02}.wav", x, rate)
    files = model.score_files(tmp_path)
    assert [filed.file for filed in files] == [f"{number:02}.wav" for number in range(len(arrays))]
    for filed, (rate, x) in zip(files, arrays, strict=True):
        floats = x.T.astype(np.float64) / 2**15
        for given in (x.T, floats, x.T.astype(np.int32) * 2**16, floats.astype(np.float32)):
            scored = model.score(given if len(given) > 1 else given[0], sample_rate=rate)
            assert (scored.label, scored.segments, scored.status) == (filed.label, filed.segments, "ok")
            assert (scored.start, scored.end, scored.duration) == (filed.start, filed.end, filed.duration)
            assert scored.probabilities == pytest.approx(filed.probabilities, abs=1e-5)
            for name, branch in filed.branches.items():
                assert scored.branches[name] == pytest.approx(branch, abs=1e-5)
            assert scored.file is None


def test_a_list_is_several_recordings_each_as_alone(model: ser_batch.Model) -> None:
    arrays = [sound(seconds, 16_000, seed=n)[:, 0] for n, seconds in enumerate((1.0, 9.0, 0.5, 3.0, 12.0))]
    together = model.score(arrays, sample_rate=16_000)
    assert [each.segments for each in together] == [1, 3, 1, 1, 4]
    for one, array in zip(together, arrays, strict=True):
        assert one.probabilities == pytest.approx(model.score(array, 16_000).probabilities, abs=1e-6)
    first, second = model.score((arrays[0], arrays[0]), sample_rate=[16_000, 8_000])
    assert second.duration == 2 * first.duration
    assert model.score([], sample_rate=16_000) == []


def test_silence_has_no_label_and_says_so(model: ser_batch.Model) -> None:
    silent = model.score(np.zeros(16_000), sample_rate=16_000)
    assert (silent.label, silent.score, silent.status, silent.probabilities) == (None, None, "silent", {})
    assert "silent" in repr(silent)


@pytest.mark.parametrize(
    ("x", "rate", "error", "message"),
    [
        (np.zeros(0), 16_000, AudioError, "^x holds no audio; got 0 frames"),
        ([np.ones(9), np.zeros(0)], 16_000, AudioError, r"^x\[1\] holds no audio"),
        ([np.ones(9), np.ones(9, int)], 16_000, InputError, r"^x\[1\]: the type of the samples"),
        (np.ones(9), 100, AudioError, "^x has a sample rate out of range; got 100 Hz"),
        (np.full(100, np.nan), 16_000, AudioError, "no audio; got values from nan"),
        (np.full(100, 1e300), 16_000, AudioError, "no audio; got values from inf"),
        (np.zeros((9, 2)), 16_000, InputError, "give x.T"),
        (np.zeros(9), [16_000], InputError, "one recording has one sample rate"),
        ([np.zeros(9)], [16_000, 8_000], InputError, "one for each; got 2; expected 1"),
    ],
)
def test_what_cannot_be_scored_raises_what_was_expected(
    model: ser_batch.Model, x: object, rate: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.score(x, sample_rate=rate)  # type: ignore[call-overload]


def test_arrays_have_embeddings_where_the_model_was_loaded_for_them(
    embedding_bundle: Bundle, head_bundle: Bundle, toy_bundle: Bundle, tmp_path: Path
) -> None:
    x = (sound(9.0, 16_000)[:, 0] * 2**15).astype(np.int16)
    soundfile.write(tmp_path / "x.wav", x, 16_000)
    for bundle in (embedding_bundle, head_bundle):
        with ser_batch.load(bundle.root, backend="onnxruntime", embeddings=True) as model:
            assert model.embedding_size == 8 and "  embedding  8\n" in repr(model)
            scored, filed = model.score(x, 16_000), model.score_files(tmp_path / "x.wav")[0]
            assert scored.segments == 3 and scored.embedding is not None and scored.embedding.shape == (8,)
            np.testing.assert_allclose(scored.embedding, filed.embedding, atol=1e-4)
            assert model.score(np.zeros(16_000), 16_000).embedding is None
            assert model.branch_labels == toy_bundle.labels and [*scored.branches["wav2vec2"]] == [*toy_bundle.labels]
    with ser_batch.load(head_bundle.root, backend="onnxruntime") as model:
        plain = model.score(x, 16_000)
        assert plain == scored and plain.embedding is None and model.embedding_size is None
        assert "wav2vec2, spectrogram; of neutral, calm" in repr(model)
    with pytest.raises(BundleError, match="has no embedding"):
        ser_batch.load(toy_bundle.root, embeddings=True)


def test_files_are_rows_and_what_cannot_be_read_says_why(model: ser_batch.Model, tmp_path: Path) -> None:
    write(tmp_path / "a.wav", 7.0)
    (tmp_path / "b.wav").write_bytes(b"no audio")
    found = model.score_files([str(tmp_path)])
    assert isinstance(found.to_arrow(), pa.Table) and found.labels == model.labels and len(found) == 2
    assert [each.status for each in found] == ["ok", "error"]
    assert found.failures[0][0] == "b.wav" and "cannot be decoded" in found.failures[0][1]
    assert found[1].error == found.failures[0][1]
    assert "2 predictions, 1 of recordings that failed" in repr(found) and "a.wav" in repr(found)
    windows = model.score_files(tmp_path / "a.wav", window=2, hop=1)
    assert [(each.start, each.end) for each in windows] == [(n, n + 2.0) for n in range(6)]
    with pytest.raises(TypeError, match=r"has no option 'out'; it has .*window"):
        model.score_files(tmp_path, out="x.parquet")
    with pytest.raises(InputError, match="does not exist"):
        model.score_files(tmp_path / "absent")
    with pytest.raises(InputError, match="no audio found"):
        model.score_files([])


def test_a_closed_model_says_so(toy_bundle: Bundle) -> None:
    model = ser_batch.load(toy_bundle.root)
    model.close()
    model.close()
    assert "closed" in repr(model)
    with pytest.raises(EngineError, match=r"this model is closed. Load it again: ser_batch.load\(\)"):
        model.score(np.ones(9), 16_000)
    with pytest.raises(EngineError, match="closed"):
        model.score_files("a.wav")
    with pytest.raises(BundleError, match="is not a bundle"):
        ser_batch.load("absent")
    with pytest.raises(EngineError, match="no backend 'abacus'"):
        ser_batch.load(toy_bundle.root, backend="abacus")


def test_threads_share_a_model(model: ser_batch.Model, tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"{number}.wav", 1.0 + number)
    x = sound(2.0, 16_000)[:, 0]
    expected, files = model.score(x, 16_000), model.score_files(tmp_path).probabilities
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(3):
            if number % 2:
                same = np.allclose(model.score_files(tmp_path).probabilities, files, atol=1e-6)
            else:
                same = model.score(x, 16_000).probabilities == pytest.approx(expected.probabilities, abs=1e-6)
            if not same:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_event_loop_hands_it_to_a_thread(model: ser_batch.Model) -> None:
    async def main() -> list[ser_batch.Prediction]:
        x = sound(1.0, 16_000)[:, 0]
        return await asyncio.gather(*(asyncio.to_thread(model.score, x, 16_000) for _ in range(3)))

    assert len({each.label for each in asyncio.run(main())}) == 1


SCRIPT = """
import sys
import numpy, ser_batch
bundle, audio, out = sys.argv[1:]
with ser_batch.load(bundle, backend="onnxruntime") as model:
    print(model.score(numpy.sin(numpy.arange(16_000)), 16_000).label, len(model.score_files(audio)))
print(ser_batch.run(audio, out, bundle=bundle, backend="onnxruntime").rows)
"""


def test_a_script_on_standard_input_that_guards_nothing(toy_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    for number in range(3):
        write(tmp_path / "audio" / f"{number}.wav", 1.0)
    command = [sys.executable, "-", *map(str, (toy_bundle.root, tmp_path / "audio", tmp_path / "o.parquet"))]
    done = subprocess.run(command, input=SCRIPT, capture_output=True, text=True, cwd=REPOSITORY, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\w+ 3\n3\n", done.stdout)


def test_run_does_what_the_command_does(toy_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    write(tmp_path / "audio" / "a.wav", 1.0)
    out, seen = tmp_path / "o.parquet", []
    summary = ser_batch.run(
        tmp_path / "audio", out, bundle=str(toy_bundle.root), progress=lambda progress: seen.append(progress.files)
    )
    assert (summary.rows, summary.failures, summary.out, seen) == (1, 0, str(out), [1])
    assert summary.model.startswith(f"{toy_bundle.id} on onnxruntime") and "output    " in str(summary)
    write(tmp_path / "audio" / "b.wav", 1.0)
    again = ser_batch.run([tmp_path / "audio"], out=out, bundle=toy_bundle.root, resume=True)
    assert (again.rows, again.reused) == (2, 1)
    assert pq.read_table(out)["file"].to_pylist() == ["a.wav", "b.wav"]
    with pytest.raises(TypeError, match=r"run\(\) has no option 'resum'; it has aggregate, .*resume"):
        ser_batch.run(tmp_path / "audio", out, resum=True)
    with pytest.raises(ser_batch.SerError, match="exists already"):
        ser_batch.run(tmp_path / "audio", out, bundle=toy_bundle.root)


def test_importing_the_package_imports_nothing_and_every_name_is_there() -> None:
    code = "import sys, ser_batch as s; print(*sys.modules); print(dir(s)); [getattr(s, name) for name in s.__all__]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    modules, names = done.stdout.splitlines()
    assert not set(modules.split()) & {"numpy", "pyarrow", "soundfile", "onnxruntime", "click", "rich"}
    stub = (REPOSITORY / "ser_batch" / "__init__.pyi").read_text()
    declared = {*re.findall(r"import \w+ as (\w+)", stub), "__version__"}
    assert declared == set(ser_batch.__all__) and "'load'" in names
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        ser_batch.laod  # noqa: B018
