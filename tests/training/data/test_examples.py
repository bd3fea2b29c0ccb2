"""Batches of training examples: all of them, shuffled anew each epoch, the same for the same epoch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ser_batch.clips import ClipRule  # noqa: E402
from training.config import AugmentConfig  # noqa: E402
from training.data.examples import (  # noqa: E402
    CachedSet,
    FreshSet,
    VersionedSet,
    ahead,
    mask_spectrogram,
    run_ahead,
    shuffled,
)
from training.data.features import encode  # noqa: E402

CPU = torch.device("cpu")


class Level(torch.nn.Module):
    """Features (B, 4): level of each quarter."""

    def features(self, waveform: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return waveform.reshape(len(waveform), 4, -1).square().mean(dim=2)


@pytest.mark.parametrize(("count", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (9, [4, 4])])
def test_every_example_once_but_a_lone_last_one(count: int, sizes: list[int]) -> None:
    batches = list(shuffled(count, 4, (0, 0)))
    assert [len(b) for b in batches] == sizes
    seen = np.concatenate(batches)
    assert len(set(seen)) == len(seen) == sum(sizes) and set(seen) <= set(range(count))


def test_cached_examples_keep_their_targets_and_change_order_with_the_epoch() -> None:
    data = CachedSet(torch.arange(20.0)[:, None].half(), torch.arange(20), seed=0)
    orders = []
    for epoch in (0, 0, 1):
        rows = list(data.batches(epoch, 8))
        assert all(torch.equal(f[:, 0], t.float()) and f.dtype == torch.float32 for f, t in rows)
        orders.append(torch.cat([t for _, t in rows]).tolist())
    assert sorted(orders[0]) == list(range(20))
    assert orders[0] == orders[1] != orders[2]


def test_fresh_examples_are_new_each_epoch_and_the_same_for_the_same_one() -> None:
    rule = ClipRule(sample_rate=8000, samples=800, offset=0.0)
    recordings = [np.full(900, 0.01 * (i + 1), np.float32) for i in range(10)]
    config = AugmentConfig(fresh=True)
    data = FreshSet(recordings, torch.arange(10), Level(), rule, config, seed=0, device=CPU)
    first, again, other = (list(data.batches(epoch, 4)) for epoch in (0, 0, 1))
    for (f, t), (g, u) in zip(first, again, strict=True):
        assert torch.equal(f, g) and torch.equal(t, u)
    assert not torch.equal(first[0][0], other[0][0])
    for features, targets in first:  # noise at 10 dB and more moves a level by a tenth at most, and a bit of luck
        np.testing.assert_allclose(features.mean(dim=1).sqrt(), 0.01 * (targets + 1), rtol=0.1)


def test_an_epoch_takes_one_version_of_each_recording() -> None:
    versions = [np.arange(5, 15, dtype=np.float32)[:, None] + 100 * v for v in range(3)]
    data = VersionedSet(versions, torch.arange(10), AugmentConfig(fresh=True, versions=2), seed=0, masked=False)
    first, again, other = (list(data.batches(epoch, 4)) for epoch in (0, 0, 1))
    seen = torch.cat([t for _, t in first])
    assert sorted(seen.tolist()) == list(range(10))
    for features, targets in first:
        assert torch.equal(features[:, 0] % 100, targets.float() + 5)
    drawn = torch.cat([f[:, 0] // 100 for f, _ in first])
    assert set(drawn.tolist()) == {0.0, 1.0, 2.0}
    assert all(torch.equal(f, g) for (f, _), (g, _) in zip(first, again, strict=True))
    assert not torch.equal(
        drawn[seen.argsort()], torch.cat([f[:, 0] // 100 for f, _ in other])[torch.cat([t for _, t in other]).argsort()]
    )


def test_encoding_in_chunks_is_encoding_at_once() -> None:
    waveforms = [np.random.default_rng(i).standard_normal(80).astype(np.float32) for i in range(70)]
    features = encode(Level(), iter(waveforms), CPU)
    with torch.no_grad():
        torch.testing.assert_close(features, Level().features(torch.from_numpy(np.stack(waveforms))))
    assert features.dtype == torch.float32 and features.device == CPU


def test_masks_cover_stretches_of_frames_and_bands() -> None:
    features = torch.randn(6, 128, 278)
    config = AugmentConfig(fresh=True, time_mask=30, band_mask=16)
    masked = mask_spectrogram(features, config, np.random.default_rng(0))
    changed = (masked != features).numpy()
    assert changed.any(axis=(1, 2)).all()
    frames, bands = changed.all(axis=1).sum(axis=1), changed.all(axis=2).sum(axis=1)
    assert frames.max() <= 60 and bands.max() <= 32 and frames.max() > 0 < bands.max()
    for clip, row, where in zip(features, masked, changed, strict=True):
        np.testing.assert_allclose(row[torch.from_numpy(where)], float(clip.mean()), atol=1e-4)


def test_nothing_is_masked_unless_asked_or_where_there_is_no_spectrogram() -> None:
    rng = np.random.default_rng(0)
    features, waveforms = torch.randn(2, 8, 9), torch.randn(2, 100)
    assert mask_spectrogram(features, AugmentConfig(), rng) is features
    assert mask_spectrogram(waveforms, AugmentConfig(fresh=True, time_mask=3), rng) is waveforms


def test_how_many_threads_draw_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = ClipRule(sample_rate=8000, samples=800, offset=0.0)
    config = AugmentConfig(fresh=True, speeds=(0.9, 1.1), noises=("white", "coloured"), channels=("lowpass", "room"))
    clips = [np.random.default_rng(i).standard_normal(900).astype(np.float32) for i in range(20)]
    fresh = FreshSet(clips, torch.arange(20), Level(), rule, config, seed=0, device=CPU)
    drawn = VersionedSet([np.stack(clips)], torch.arange(20), config, seed=0, rate=8000)
    masks = AugmentConfig(fresh=True, versions=1, time_mask=3, band_mask=3)
    spectrograms = [np.random.default_rng(i).standard_normal((20, 8, 9)).astype(np.float32) for i in range(2)]
    masked = VersionedSet(spectrograms, torch.arange(20), masks, seed=0, masked=True)
    found = []
    for workers in (1, 7):
        monkeypatch.setattr(ahead, "__defaults__", (workers,))
        found.append([list(data.batches(2, 3)) for data in (fresh, drawn, masked)])
    for one, many in zip(*found, strict=True):
        assert all(torch.equal(f, g) and torch.equal(t, u) for (f, t), (g, u) in zip(one, many, strict=True))
    assert len({float(features.sum()) for features, _ in found[0][1]}) == 7  # no batch is drawn as another one


def test_too_few_examples_for_a_batch_are_none() -> None:
    assert not list(CachedSet(torch.zeros(1, 2), torch.zeros(1), seed=0).batches(0, 4))


def test_what_is_made_out_of_order_is_given_out_in_order() -> None:
    def make(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    assert list(ahead(make, range(20), workers=4)) == list(range(20))
    assert not list(ahead(make, [], workers=4))


def test_the_next_is_made_while_the_last_is_used_and_no_more_than_asked() -> None:
    made: list[int] = []
    third = threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if number == 2:
            third.set()
        return number

    found = ahead(make, range(100), workers=2)
    assert next(found) == 0 and third.wait(10) and len(made) <= 3
    found.close()  # type: ignore[attr-defined]
    assert len(made) <= 3


def test_an_error_comes_where_it_belongs() -> None:
    def make(number: int) -> float:
        return 1 / (2 - number)

    found = ahead(make, range(9), workers=3)
    assert [next(found), next(found)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_an_iterator_runs_ahead_in_one_thread() -> None:
    threads: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(10):
            threads.add(threading.get_ident())
            yield number

    assert list(run_ahead(items())) == list(range(10))
    assert len(threads) == 1 and threading.get_ident() not in threads
