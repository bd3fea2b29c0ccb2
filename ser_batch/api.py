"""The Python API: `load` a model and let it score arrays and files, or `run` what the command does; see docs/api.md."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast, overload

import numpy.typing as npt
import pyarrow as pa

from ser_batch.audio.reader import Clip
from ser_batch.audio.samples import ArraySound
from ser_batch.audio.windows import segments_of
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.clips import Segmentation, Waveform
from ser_batch.decode.segments import segment_of
from ser_batch.engines.protocol import Engine, open_engine
from ser_batch.engines.scorer import Scorer, Scores
from ser_batch.errors import AudioError, EngineError, InputError
from ser_batch.output.schema import record_batch, schema
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.local import LocalExecutor, default_batch, default_batch_on, score_segments
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.run import run as run_pipeline
from ser_batch.pipeline.run import score_to_table
from ser_batch.pipeline.summary import RunSummary
from ser_batch.prediction import Prediction, Predictions
from ser_batch.recordings.recording import UNKNOWN_VERSION, Recording, Segment
from ser_batch.recordings.table import Recordings
from ser_batch.verification.auto import AUTO, choose

Audio = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A folder, a recording, a glob, a URL or a table of recordings; or several."""


def load(
    bundle: str | os.PathLike[str] | None = None,
    *,
    backend: str = AUTO,
    precision: str | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
) -> Model:
    """Open a bundle in a runtime.

    Args:
        bundle: folder; None: the embedded default bundle.
        backend: a runtime (`ser-batch info` lists them), or "auto": the fastest that `ser-batch verify` proved here.
        precision: "fp32", "bf16", "fp16" or "int8"; None: the backend's default.
        threads: CPU threads of the runtime; None: its own choice, within the quota of a container.
        batch_size: clips scored together; None: by the device and the number of CPUs.

    Raises:
        BundleError: the bundle is missing or damaged.
        EngineError: no such runtime, or it cannot run here.
    """
    opened = load_bundle(None if bundle is None else Path(bundle))
    choice = choose(opened, backend, precision)
    engine = open_engine(opened, choice.backend, threads, choice.precision, batch_size or default_batch())
    return Model(opened, engine, batch_size or default_batch_on(engine.device))


class Model:
    """A bundle in an open runtime; `load` makes it. Any thread may use it; batches are scored one after the other.

    Use it as a context manager, or `close` it, to give its memory back at once.
    """

    def __init__(self, bundle: Bundle, engine: Engine, batch_size: int) -> None:
        self._bundle, self._engine, self._batch_size = bundle, engine, batch_size
        self._lock = threading.Lock()
        self._scorer: Scorer | None = _OneAtATime(bundle, engine, self._lock)

    @property
    def bundle_id(self) -> str:
        """Name and the first digits of the sha256 of the bundle, as in predictions."""
        return self._bundle.id

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of every row of probabilities."""
        return self._bundle.labels

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches, in the order of the fusion's inputs."""
        return tuple(branch.name for branch in self._bundle.manifest.branches)

    @property
    def sample_rate(self) -> int:
        """Hz that recordings of any other rate are resampled to."""
        return self._bundle.manifest.clip.sample_rate

    @property
    def clip_seconds(self) -> float:
        """Seconds that the model takes at a time; a recording of more than two of them is scored in windows."""
        return self._bundle.manifest.clip.seconds

    @property
    def runtime(self) -> str:
        """Runtime, precision and device: "onnxruntime fp32, cpu"."""
        return f"{self._engine.name} {self._engine.precision}, {self._engine.device}"

    @overload
    def score(self, x: npt.NDArray[Any], sample_rate: int) -> Prediction: ...
    @overload
    def score(self, x: Sequence[npt.ArrayLike], sample_rate: int | Sequence[int]) -> list[Prediction]: ...
    def score(
        self, x: npt.NDArray[Any] | Sequence[npt.ArrayLike], sample_rate: int | Sequence[int]
    ) -> Prediction | list[Prediction]:
        """Score a recording in memory, or a list of them in batches; what `run` would say of the same samples.

        Channels are mixed, any rate is resampled, more than two clips are scored in windows and averaged.

        Args:
            x: (n,) or (channels, n); int16, int32, int8 and uint8 have their full scale, floats 1.0. A list or a
                tuple is several recordings, of any lengths.
            sample_rate: Hz; of a list, one for all or one for each.

        Raises:
            InputError: another shape or type.
            AudioError: no samples, a rate out of range, or samples that are NaN, infinite or beyond 1e6.
            EngineError: the runtime failed, or the model is closed.
        """
        if not isinstance(x, list | tuple):
            if isinstance(sample_rate, Sequence):
                raise InputError("one recording has one sample rate", got=sample_rate, expected="16000, 44100, …")
            return self._scored({"x": (cast(npt.ArrayLike, x), sample_rate)})[0]
        rates = [*sample_rate] if isinstance(sample_rate, Sequence) else [sample_rate] * len(x)
        if len(rates) != len(x):
            raise InputError("a list needs one sample rate, or one for each", got=len(rates), expected=len(x))
        return list(self._scored({f"x[{number}]": pair for number, pair in enumerate(zip(x, rates, strict=True))}))

    def score_files(self, audio: Audio, **options: Any) -> Predictions:
        """Score files, folders, globs, URLs or tables of recordings; what cannot be read is a row that says why.

        Args:
            options: fields of `ser_batch.pipeline.config.RunConfig` that say what is scored: `window`, `hop`, `clip`,
                `min_duration`, `silence`, `channels`, `root`, `shard`, `branch_columns`; and how: `workers`,
                `batch_size`, `file_timeout`.

        Returns:
            one row per recording; with `window`, one per segment. Rows are held in memory: `run` writes them to a file.

        Raises:
            InputError: no audio is found, or an option makes no sense.
            EngineError: the runtime failed, or the model is closed.
        """
        if unknown := sorted(set(options) - SCORING):
            raise TypeError(f"score_files() has no option {unknown[0]!r}; it has {', '.join(sorted(SCORING))}")
        config = RunConfig(_given(audio), "", **{"batch_size": self._batch_size} | options)
        return Predictions(score_to_table(config, LocalExecutor(self._open())))

    def close(self) -> None:
        """Close the runtime; nothing can be scored any more. Closing it again does nothing."""
        with self._lock:
            if self._scorer is not None:
                self._scorer = None
                self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = [
            ("labels", ", ".join(self.labels)),
            ("takes", f"any sample rate, resampled to {self.sample_rate} Hz; {self.clip_seconds:g} s at a time"),
            ("branches", ", ".join(self.branches)),
            ("runtime", self.runtime if self._scorer else "closed"),
        ]
        return "\n".join([f"<Model {self.bundle_id}>", *(f"  {name:<8}  {value}" for name, value in rows)])

    def _open(self) -> Scorer:
        if self._scorer is None:
            raise EngineError("this model is closed", remedy="Load it again: ser_batch.load().")
        return self._scorer

    def _scored(self, arrays: Mapping[str, tuple[npt.ArrayLike, float]]) -> Predictions:
        """Score arrays with their rates, each under the name that errors about it have."""
        scorer, segmentation = self._open(), Segmentation(self._bundle.manifest.clip, whole=True)
        table = schema(self._bundle, self._engine, segmentation)
        decoded, progress = _segments(arrays, segmentation), Progress(len(arrays))
        batches = [
            record_batch(table, self.labels, segments, scores)
            for segments, scores in score_segments(decoded, scorer, self._batch_size, progress, segmentation)
        ]
        predictions = Predictions(pa.Table.from_batches(batches, table))
        if predictions.failures:
            # Of a recording that was decoded, it is the runtime.
            raise EngineError(predictions.failures[0][1])
        return predictions


SCORING = frozenset(
    (
        *("window", "hop", "clip", "min_duration", "silence", "channels", "root", "shard", "branch_columns"),
        *("workers", "batch_size", "file_timeout"),
    )
)
"""Fields of `RunConfig` that `Model.score_files` takes."""


class _OneAtATime(Scorer):
    """A scorer that several threads may call: not every runtime takes two batches at once."""

    def __init__(self, bundle: Bundle, engine: Engine, lock: threading.Lock) -> None:
        super().__init__(bundle, engine)
        self._lock = lock

    def score(self, waveform: Waveform) -> Scores:
        """See `Scorer.score`."""
        with self._lock:
            return super().score(waveform)


def _segments(
    arrays: Mapping[str, tuple[npt.ArrayLike, float]], segmentation: Segmentation
) -> Iterator[tuple[Segment, Waveform | None]]:
    """The segments of each recording, in order; each waits for the next, since the last of a recording is marked."""
    for name, (samples, rate) in arrays.items():
        recording, waiting = Recording("", ""), None
        with _about(name):
            for clip in segments_of(ArraySound(samples, rate), segmentation):
                if waiting is not None:
                    yield _segment(recording, segmentation, waiting, last=False)
                waiting = clip
        assert waiting is not None, "what holds nothing raises AudioError"
        yield _segment(recording, segmentation, waiting, last=True)


def _segment(
    recording: Recording, segmentation: Segmentation, clip: Clip, *, last: bool
) -> tuple[Segment, Waveform | None]:
    segment, waveform = segment_of(recording, UNKNOWN_VERSION, segmentation, clip, last=last)
    return segment._replace(decoder=None), waveform


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Let every error about an array name it."""
    try:
        yield
    except AudioError as error:
        raise AudioError(error.what, path=name, got=error.got, expected=error.expected, remedy=error.remedy) from error
    except InputError as error:
        raise InputError(
            f"{name}: {error.what}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error


def run(
    audio: Audio | Recordings,
    out: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> RunSummary:
    """Score recordings and write one row for each to `out`: what `ser-batch run` does.

    Args:
        audio: folders, recordings, globs, URLs, or tables of recordings.
        out: a file, or a folder of parts ("DIR/"), which appears whole at the end.
        progress: called after each batch with how far the run is; it may raise to stop the run.
        options: the other fields of `ser_batch.pipeline.config.RunConfig`, which the options of the command are named
            after: `bundle`, `window`, `resume`, `overwrite`, `max_errors`, ….

    Returns:
        what the run did; `print` shows it as the command does.

    Raises:
        SerError: anything that the user can cause; rows made before are kept for `resume=True`.
    """
    known = {field.name for field in dataclasses.fields(RunConfig)} - {"audio", "out"}
    if unknown := sorted(set(options) - known):
        raise TypeError(f"run() has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    if options.get("bundle") is not None:
        options["bundle"] = Path(options["bundle"])
    config = RunConfig(audio if isinstance(audio, Recordings) else _given(audio), out, **options)
    return run_pipeline(config, None, lambda total: nullcontext(progress)).summary


def _given(audio: Audio) -> tuple[str, ...]:
    return (os.fspath(audio),) if isinstance(audio, str | os.PathLike) else tuple(os.fspath(each) for each in audio)
