"""A model for Python: `load` one, and let it score arrays and files; see docs/api.md."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, overload

import numpy.typing as npt
import pyarrow as pa

from ser_batch.audio.reader import Clip
from ser_batch.audio.samples import ArraySound
from ser_batch.audio.windows import segments_of
from ser_batch.bundle.bundle import Bundle, load_bundle
from ser_batch.clips import Segmentation, Waveform
from ser_batch.commands import Audio, given_audio
from ser_batch.decode.segments import segment_of
from ser_batch.engines.protocol import Engine, open_engine
from ser_batch.engines.scorer import Scorer, Scores
from ser_batch.errors import AudioError, EngineError, InputError
from ser_batch.output.schema import record_batch, schema
from ser_batch.pipeline.config import RunConfig
from ser_batch.pipeline.local import LocalExecutor, default_batch, default_batch_on, score_segments
from ser_batch.pipeline.progress import Progress
from ser_batch.pipeline.run import score_to_table
from ser_batch.prediction import Prediction, Predictions
from ser_batch.recordings.recording import UNKNOWN_VERSION, Recording, Segment
from ser_batch.verification.auto import AUTO, choose


def load(
    bundle: str | os.PathLike[str] | None = None,
    *,
    backend: str = AUTO,
    precision: str | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    embeddings: bool = False,
) -> Model:
    """Open a bundle in a runtime.

    Args:
        bundle: folder; None: the embedded default bundle.
        backend: a runtime (`ser-batch info` lists them), or "auto": the fastest that `ser-batch verify` proved here.
        precision: "fp32", "bf16", "fp16" or "int8"; None: the backend's default.
        threads: CPU threads of the runtime; None: its own choice, within the quota of a container.
        batch_size: clips scored together; None: by the device and the number of CPUs.
        embeddings: whether predictions hold the embedding, too; where it is not asked for it costs nothing.

    Raises:
        BundleError: the bundle is missing or damaged, or has no embedding and they are asked for.
        EngineError: no such runtime, or it cannot run here.
    """
    opened = load_bundle(None if bundle is None else Path(bundle))
    choice = choose(opened, backend, precision)
    batch = batch_size or default_batch()
    engine = open_engine(opened, choice.backend, threads, choice.precision, batch, embedding=embeddings)
    return Model(opened, engine, batch_size or default_batch_on(engine.device), embeddings=embeddings)


class Model:
    """A bundle in an open runtime; `load` makes it. Any thread may use it; batches are scored one after the other.

    Use it as a context manager, or `close` it, to give its memory back at once.
    """

    def __init__(self, bundle: Bundle, engine: Engine, batch_size: int, *, embeddings: bool = False) -> None:
        self._bundle, self._engine, self._batch_size, self._embeddings = bundle, engine, batch_size, embeddings
        self._lock = threading.Lock()
        self._scorer: Scorer | None = _OneAtATime(bundle, engine, self._lock, embeddings)

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
    def branch_labels(self) -> tuple[str, ...]:
        """The labels of the branches' own rows: the same as `labels`, unless the bundle is a head for other labels."""
        return self._bundle.branch_labels

    @property
    def embedding_size(self) -> int | None:
        """Numbers of the embedding of each prediction; None: predictions hold none."""
        return self._bundle.embedding().size if self._embeddings else None

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

    def score_files(self, audio: Audio, *, embeddings: bool | None = None, **options: Any) -> Predictions:
        """Score files, folders, globs, URLs or tables of recordings; what cannot be read is a row that says why.

        Args:
            embeddings: whether rows hold the embedding, as float32; None: as the model was loaded.
            options: fields of `ser_batch.pipeline.config.RunConfig` that say what is scored: `window`, `hop`, `clip`,
                `min_duration`, `silence`, `channels`, `root`, `shard`, `branch_columns`; and how: `workers`,
                `batch_size`, `file_timeout`.

        Returns:
            one row per recording; with `window`, one per segment. Rows are held in memory: `run` writes them to a file.

        Raises:
            InputError: no audio is found, an option makes no sense, or the model was not loaded for embeddings.
            EngineError: the runtime failed, or the model is closed.
        """
        if unknown := sorted(set(options) - SCORING):
            raise TypeError(f"score_files() has no option {unknown[0]!r}; it has {', '.join(sorted(SCORING))}")
        if embeddings and not self._embeddings:
            raise InputError(
                "this model was loaded without embeddings", remedy="Load it again: ser_batch.load(…, embeddings=True)."
            )
        wanted = self._embeddings if embeddings is None else embeddings
        given = {"batch_size": self._batch_size, "embeddings": "float32" if wanted else None}
        config = RunConfig(given_audio(audio), "", **given | options)
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
        differ = self.branch_labels != self.labels
        rows = [
            ("labels", ", ".join(self.labels)),
            ("takes", f"any sample rate, resampled to {self.sample_rate} Hz; {self.clip_seconds:g} s at a time"),
            ("branches", ", ".join(self.branches) + (f"; of {', '.join(self.branch_labels)}" if differ else "")),
            *([("embedding", str(self.embedding_size))] if self._embeddings else []),
            ("runtime", self.runtime if self._scorer else "closed"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join([f"<Model {self.bundle_id}>", *(f"  {name:<{width}}  {value}" for name, value in rows)])

    def _open(self) -> Scorer:
        if self._scorer is None:
            raise EngineError("this model is closed", remedy="Load it again: ser_batch.load().")
        return self._scorer

    def _scored(self, arrays: Mapping[str, tuple[npt.ArrayLike, float]]) -> Predictions:
        """Score arrays with their rates, each under the name that errors about it have."""
        scorer, segmentation = self._open(), Segmentation(self._bundle.manifest.clip, whole=True)
        kind, of_branches = "float32" if self._embeddings else None, self.branch_labels
        table = schema(self._bundle, self._engine, segmentation, embeddings=kind)
        decoded, progress = _segments(arrays, segmentation), Progress(len(arrays))
        batches = [
            record_batch(table, self.labels, segments, scores, branch_labels=of_branches)
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

    def __init__(self, bundle: Bundle, engine: Engine, lock: threading.Lock, embeddings: bool) -> None:
        super().__init__(bundle, engine, embedding=embeddings)
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
