"""Decode processes of the tests are forked, but where they are what is tested."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.nursery import Nursery

STARTED = ("decode", "audio")
"""Folders whose tests start decode processes as a run does."""


@pytest.fixture(scope="session")
def decoder_nursery() -> Iterator[Nursery]:
    opened = Nursery()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def forked_decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name == "posix" and request.path.parent.name not in STARTED:
        monkeypatch.setattr("ser_batch.decode.process.subprocess", request.getfixturevalue("decoder_nursery"))
