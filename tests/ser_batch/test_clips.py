"""The clip rule: where the clip of a recording begins, in memory and from a file, and how bundles and tables say it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_batch.audio.reader import read_clip
from ser_batch.bundle.manifest import parse_manifest
from ser_batch.clips import ClipRule, Segmentation, cut
from ser_batch.errors import BundleError
from support.toy import make_toy_bundle

OLD, CLAMPED = ClipRule(), ClipRule(clamp_offset=True)


@pytest.mark.parametrize(
    ("seconds", "old", "clamped"), [(2.0, 0, 0), (3.0, 0, 0), (3.1, 0.5, 0.1), (3.5, 0.5, 0.5), (60.0, 0.5, 0.5)]
)
def test_where_a_clip_begins(seconds: float, old: float, clamped: float) -> None:
    length = round(seconds * 48_000)
    assert (OLD.start(length), CLAMPED.start(length)) == (round(old * 48_000), round(clamped * 48_000))


@pytest.mark.parametrize("rate", [48_000, 16_000, 44_100])
@pytest.mark.parametrize("seconds", [2.9, 3.01, 3.3, 3.5, 3.6, 3.74, 3.76, 3.9, 9.0])
def test_a_clip_read_from_a_file_is_that_of_the_whole_recording(rate: int, seconds: float, tmp_path: Path) -> None:
    """A file is only decoded as far as its clip needs, which must not be taken for its length."""
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples, rate, subtype="FLOAT")
    clip = read_clip(tmp_path / "x.wav", CLAMPED)
    if rate == 48_000:
        np.testing.assert_array_equal(clip.waveform, cut(samples, CLAMPED))
    assert clip.start == pytest.approx(min(0.5, max(0.0, seconds - 3)), abs=1e-3)
    assert clip.end == pytest.approx(min(seconds, clip.start + 3), abs=1e-3)
    assert (clip.waveform[-480:] != 0).any() == (seconds >= 3), "a recording of one clip or more is not padded"


def test_a_bundle_from_before_the_clamp_keeps_its_rule_and_its_identity(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "old", clip=ClipRule(samples=24_000))
    raw = (tmp_path / "old/manifest.json").read_bytes()
    assert b"clamp_offset" not in raw
    assert not parse_manifest(raw).clip.clamp_offset and parse_manifest(raw).to_json().encode() == raw
    assert "clamp_offset" not in Segmentation(bundle.manifest.clip).to_json()


def test_the_clamp_travels_in_the_manifest_and_in_a_tables_provenance(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "new", clip=ClipRule(samples=24_000, clamp_offset=True))
    assert bundle.manifest.clip.clamp_offset
    data = json.loads((tmp_path / "new/manifest.json").read_bytes())
    assert data["clip"]["clamp_offset"] is True
    assert json.loads(Segmentation(bundle.manifest.clip).to_json())["clamp_offset"] is True
    data["clip"]["clamp_offset"] = 1
    with pytest.raises(BundleError, match="clamp_offset"):
        parse_manifest(json.dumps(data).encode())
