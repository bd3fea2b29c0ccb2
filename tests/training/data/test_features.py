"""Cached features: what is served, computed once, told apart by whatever decides them, whole after a kill."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ser_batch.audio.reader import read_clip  # noqa: E402
from support import toy_corpus  # noqa: E402
from training import runs  # noqa: E402
from training.config import AugmentConfig  # noqa: E402
from training.data.corpus import Corpus  # noqa: E402
from training.data.features import FeatureCache  # noqa: E402
from training.runtime import Runtime  # noqa: E402
from training.stages import train, training_set  # noqa: E402

AUGMENT = AugmentConfig(fresh=True, versions=2, speeds=(0.9, 1.1), crop_jitter=0.05)
CONFIG = replace(
    toy_corpus.BRIEF,
    augment=AUGMENT,
    context=replace(toy_corpus.CONFIG.context, unfrozen_layers=1, freeze_projection=True),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return toy_corpus.write_corpus(tmp_path_factory.mktemp("audio"))


def cache(root: Path, corpus: Corpus, augment: AugmentConfig = AUGMENT) -> FeatureCache:
    return FeatureCache(root, corpus, CONFIG.clip, augment, torch.device("cpu"))


def test_version_zero_is_what_is_served_and_the_others_are_not(corpus: Corpus, tmp_path: Path) -> None:
    branch = runs.build_branches(CONFIG, 2)["spectrogram"]
    clean, *augmented = cache(tmp_path, corpus).versions(branch, range(3))
    served = np.stack([read_clip(corpus.path(i), CONFIG.clip).waveform for i in range(len(corpus))])
    with torch.no_grad():
        expected = branch.features(torch.from_numpy(served)).numpy()
    np.testing.assert_allclose(clean, expected, atol=1e-4)
    assert not np.allclose(augmented[0], clean) and not np.allclose(augmented[0], augmented[1])


def test_what_is_there_is_not_computed_again(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = runs.build_branches(CONFIG, 2)[CONFIG.context.name]
    first = [np.array(version) for version in cache(tmp_path, corpus).versions(branch, range(2))]
    monkeypatch.setattr(branch, "features", lambda waveform: pytest.fail("computed again"))
    for found, again in zip(first, cache(tmp_path, corpus).versions(branch, range(2)), strict=True):
        assert np.array_equal(found, again)


def test_whatever_decides_the_features_decides_the_file(corpus: Corpus, tmp_path: Path) -> None:
    branches = runs.build_branches(CONFIG, 2)
    other = runs.build_branches(replace(CONFIG, seed=1), 2)
    name = CONFIG.context.name
    cache(tmp_path, corpus).versions(branches[name], range(2))
    cache(tmp_path, corpus, replace(AUGMENT, gain=3.0)).versions(
        branches[name], range(2)
    )  # one more: not the clean one
    assert len(list(tmp_path.iterdir())) == 3
    cache(tmp_path, corpus).versions(other[name], range(1))  # other frozen weights
    assert len(list(tmp_path.iterdir())) == 4
    cache(tmp_path, corpus).versions(branches["spectrogram"], range(1))
    cache(tmp_path, corpus).versions(other["spectrogram"], range(1))  # a spectrogram has no weights: the same file
    cache(tmp_path, corpus, replace(AUGMENT, time_mask=9, versions=7)).versions(branches[name], range(2))
    assert len(list(tmp_path.iterdir())) == 5


def test_a_kill_while_it_is_written_leaves_nothing_that_is_read(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = runs.build_branches(CONFIG, 2)["spectrogram"]
    whole = np.array(cache(tmp_path / "whole", corpus).versions(branch, range(1))[0])
    with monkeypatch.context() as patched:
        patched.setattr("training.data.features.BATCH", 8)
        features, batches = branch.features, iter(range(2))

        def killed_in_the_third(waveform: torch.Tensor) -> torch.Tensor:
            if next(batches, None) is None:
                raise KeyboardInterrupt
            return 2 * features(waveform)

        patched.setattr(branch, "features", killed_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            cache(tmp_path / "cut", corpus).versions(branch, range(1))
    assert np.array_equal(cache(tmp_path / "cut", corpus).versions(branch, range(1))[0], whole)


def test_of_two_processes_one_computes_and_the_other_waits(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch, compute, begun = runs.build_branches(CONFIG, 2)["spectrogram"], FeatureCache._compute, Semaphore(0)

    def slow(self: FeatureCache, *given: Any) -> None:
        begun.release()
        time.sleep(0.3)  # time for the other to want the same version
        compute(self, *given)

    monkeypatch.setattr(FeatureCache, "_compute", slow)
    with ThreadPoolExecutor(2) as pool:  # the lock is of the open file, so threads stand in for processes
        one, other = pool.map(lambda _: cache(tmp_path, corpus).versions(branch, range(1))[0], range(2))
    assert np.array_equal(one, other)
    assert begun.acquire(blocking=False) and not begun.acquire(blocking=False)
    assert len(list(tmp_path.rglob("*.npy"))) == 1


@pytest.mark.parametrize(("kept", "versions"), [(True, 3), (False, 2)])
def test_the_clean_clip_is_trained_on_if_kept(kept: bool, versions: int, corpus: Corpus, tmp_path: Path) -> None:
    config = replace(CONFIG, augment=replace(AUGMENT, keep_original=kept))
    branch, run = runs.build_branches(config, 2)["spectrogram"], runs.begin(config, corpus, tmp_path / "run")
    assert len(training_set(run, branch, ("train",)).versions) == versions


def test_folds_share_the_runs_own_cache(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(CONFIG, fusion=replace(CONFIG.fusion, fit_on="out-of-fold", folds=2))
    train(config, corpus, tmp_path / "run")
    kinds = {path.parent.name for path in tmp_path.rglob("*.npy")}
    assert len(kinds) == 6  # two branches, the clean clip and two versions each


def test_the_way_a_backbone_is_named_decides_nothing(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "encoder"
    runs.build_branches(CONFIG, 2)[CONFIG.context.name].encoder.save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    for spelled in (str(folder), "encoder", "./encoder"):
        context = replace(CONFIG.context, backbone=spelled, architecture={})
        branch = runs.build_branches(replace(CONFIG, context=context), 2)[CONFIG.context.name]
        cache(tmp_path / "cache", corpus).versions(branch, range(1))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    unlike = replace(context, normalise=not branch.source.normalise)
    branch = runs.build_branches(replace(CONFIG, context=unlike), 2)[CONFIG.context.name]
    cache(tmp_path / "cache", corpus).versions(branch, range(1))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_another_recording_under_an_old_name_is_another_recording(corpus: Corpus, tmp_path: Path) -> None:
    other = toy_corpus.write_corpus(tmp_path / "audio")
    first, second = other.path(0), other.path(1)
    assert first.stat().st_size == second.stat().st_size
    branch = runs.build_branches(CONFIG, 2)["spectrogram"]
    before = cache(tmp_path / "cache", other).versions(branch, range(1))[0]
    first.write_bytes(second.read_bytes())
    after = cache(tmp_path / "cache", other).versions(branch, range(1))[0]
    assert np.array_equal(after[0], before[1]) and not np.array_equal(after[0], before[0])


def test_a_new_recording_costs_one_recording(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = runs.build_branches(CONFIG, 2)["spectrogram"]
    fewer = replace(corpus, examples=corpus.examples[1:])
    before = np.array(cache(tmp_path / "cache", fewer).versions(branch, range(1))[0])
    seen, features = [], branch.features

    def counted(waveform: torch.Tensor) -> torch.Tensor:
        seen.append(len(waveform))
        return features(waveform)

    monkeypatch.setattr(branch, "features", counted)
    after = cache(tmp_path / "cache", corpus).versions(branch, range(1))[0]
    assert sum(seen) == 1 and np.array_equal(after[list(range(1, len(corpus)))], before)
    np.testing.assert_allclose(after[0], cache(tmp_path / "whole", corpus).versions(branch, range(1))[0][0], atol=1e-4)


def test_runs_share_a_cache_and_give_what_they_give_alone(corpus: Corpus, tmp_path: Path) -> None:
    shared = tmp_path / "cache"
    first = train(CONFIG, corpus, tmp_path / "first", Runtime(cache=shared))
    files = {path: path.stat().st_mtime_ns for path in shared.rglob("*.npy")}
    assert len({path.parent for path in files}) == 6  # two branches, the clean clip and two versions each
    train(replace(CONFIG, protocol="sentence", fold=1), corpus, tmp_path / "second", Runtime(cache=shared))
    after = {path: path.stat().st_mtime_ns for path in shared.rglob("*.npy")}
    assert {path: after[path] for path in files} == files and {p.parent for p in after} == {p.parent for p in files}
    assert train(CONFIG, corpus, tmp_path / "alone") == first
