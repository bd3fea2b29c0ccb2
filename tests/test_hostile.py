"""Recordings damaged in every way: one outcome each, never a crash, a hang or a clip that is not finite."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_audio import FORMATS, RULE, write

from ser_batch.decode import decode
from ser_batch.hearing import Hearing
from ser_batch.sources import Source

HEADER = 128
WHOLE = Hearing(RULE)


def damaged(content: bytes, chance: random.Random) -> Iterator[bytes]:
    """`content` cut off, with bytes changed anywhere and in its header, and with a stretch replaced."""
    for _ in range(5):
        yield content[: chance.randrange(len(content))]
        for reach in (len(content), HEADER):
            changed = bytearray(content)
            for _ in range(chance.choice([1, 3, 10, 50])):
                changed[chance.randrange(reach)] = chance.randrange(256)
            yield bytes(changed)
        start = chance.randrange(len(content))
        yield content[:start] + chance.randbytes(chance.randrange(2_000)) + content[start + 1_000 :]


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_have_one_outcome_each(tmp_path: Path, kind: str) -> None:
    content = write(tmp_path / "whole", 1.0, kind=kind).read_bytes()
    chance = random.Random(kind)
    failures = 0
    for index, bad in enumerate(damaged(content, chance)):
        path = tmp_path / f"{index}.wav"
        path.write_bytes(bad)
        ((row, waveform),) = decode(Source(str(path), path.name), WHOLE)
        assert (row.segment is None) == (row.status == "error") == (row.error is not None)
        failures += row.status == "error"
        assert not (row.error or "").startswith("unexpected"), row.error
        if row.segment is not None:
            assert 0 <= row.segment.start < row.segment.end <= row.segment.duration
        if waveform is not None:
            assert waveform.shape == (RULE.samples,)
            assert np.isfinite(waveform).all()
    assert failures >= 5  # every cut-off one, at least
