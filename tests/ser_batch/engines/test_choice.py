from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ser_batch.bundle.bundle import Bundle
from ser_batch.clips import ClipRule
from ser_batch.engines.certificate import Entry, add_entries, certificate_path, load_certificate, machine_id
from ser_batch.engines.choice import choose
from ser_batch.errors import EngineError, InputError, OutputError
from support.toy import make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)
SOUND = Entry(
    backend="slow",
    precision="fp32",
    device="cpu",
    version="1.0",
    machine=machine_id(),
    created="2026-11-22T12:00:00+00:00",
    passed=True,
    max_difference=1e-6,
    flips=0,
    rows=36,
    speed=1.0,
)
FASTER = dataclasses.replace(SOUND, backend="fast", speed=1.5)
FASTEST = dataclasses.replace(FASTER, precision="bf16", max_difference=2e-3, speed=4.25)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_toy_bundle(tmp_path_factory.mktemp("choice") / "bundle", clip=SMALL)


@pytest.fixture
def bundle(small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle without a certificate, where the backends slow (fp32), fast (fp32, bf16) and absent are known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backends(monkeypatch, slow=None, fast=None, absent="pip install absent")
    return small


def backends(monkeypatch: pytest.MonkeyPatch, **reasons: str | None) -> None:
    """Let only these backends be known, each with the reason why it cannot run; "fast" has bf16, too."""
    monkeypatch.setattr("ser_batch.engines.protocol.BACKENDS", {name: f"fake_{name}" for name in reasons})
    for name, reason in reasons.items():
        module = ModuleType(f"fake_{name}")
        members = {
            "PRECISIONS": ("fp32", "bf16") if name == "fast" else ("fp32",),
            "unavailable": lambda reason=reason: reason,
            "unsupported": lambda precision: None,
            "version": lambda: "1.0",
        }
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def chosen(bundle: Bundle, precision: str | None = None) -> tuple[str, str]:
    choice = choose(bundle, precision=precision)
    return choice.backend, choice.precision


def test_without_a_certificate_auto_is_the_portable_default_and_says_so(bundle: Bundle) -> None:
    choice = choose(bundle)
    assert (choice.backend, choice.precision) == ("slow", "fp32")
    assert "not verified on this machine; ser-export verify" in choice.reason


def test_auto_is_the_fastest_that_passed_and_says_why(bundle: Bundle) -> None:
    add_entries(bundle, [SOUND, FASTER, FASTEST])
    choice = choose(bundle)
    assert (choice.backend, choice.precision) == ("fast", "fp32")
    assert choice.reason == f"the fastest verified here: {FASTER.speed:.2f} x onnxruntime fp32, 2026-11-22"


def test_a_lower_precision_must_be_asked_for_however_fast_it_is(bundle: Bundle) -> None:
    add_entries(bundle, [SOUND, FASTEST])
    assert chosen(bundle) == ("slow", "fp32")
    assert chosen(bundle, "bf16") == ("fast", "bf16")


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": False},
        {"speed": None},
        {"version": "0.9"},
        {"machine": "another processor, 2 CPUs"},
        {"backend": "absent"},
        {"backend": "removed"},
    ],
)
def test_what_does_not_hold_here_is_not_chosen(bundle: Bundle, changes: dict[str, object]) -> None:
    add_entries(bundle, [SOUND, dataclasses.replace(FASTER, **changes)])
    assert chosen(bundle) == ("slow", "fp32")


def test_the_default_is_kept_where_it_is_the_fastest(bundle: Bundle) -> None:
    add_entries(bundle, [SOUND, dataclasses.replace(FASTER, speed=0.8)])
    assert chosen(bundle) == ("slow", "fp32")


def test_a_precision_narrows_the_choice(bundle: Bundle) -> None:
    assert chosen(bundle, "bf16") == ("fast", "bf16")
    add_entries(bundle, [SOUND, FASTER, FASTEST])
    assert chosen(bundle, "fp32") == ("fast", "fp32")
    with pytest.raises(EngineError, match=r"no backend here runs in that precision; got int8.*fast: fp32, bf16"):
        choose(bundle, precision="int8")


def test_what_failed_is_not_taken_even_where_nothing_passed(bundle: Bundle) -> None:
    failed = dataclasses.replace(SOUND, passed=False)
    add_entries(bundle, [failed])
    assert chosen(bundle) == ("fast", "fp32")
    add_entries(bundle, [dataclasses.replace(FASTER, passed=False)])
    with pytest.raises(EngineError, match="every backend here failed ser-export verify"):
        choose(bundle)
    assert choose(bundle, "slow").backend == "slow"


def test_another_bundle_s_certificate_counts_for_nothing(bundle: Bundle, tmp_path: Path) -> None:
    add_entries(bundle, [SOUND, FASTEST])
    other = make_toy_bundle(tmp_path / "other", clip=SMALL, seed=1)
    assert chosen(other) == ("slow", "fp32")
    certificate_path(other).write_bytes(certificate_path(bundle).read_bytes())
    with pytest.raises(InputError, match=r"certificate .* is damaged.*Delete it"):
        choose(other)


def test_entries_are_kept_and_newer_ones_replace_older_ones(bundle: Bundle) -> None:
    elsewhere = dataclasses.replace(SOUND, machine="another processor, 2 CPUs")
    add_entries(bundle, [SOUND, FASTER, elsewhere])
    slower = dataclasses.replace(FASTER, speed=0.5, version="2.0", created="2026-11-23T12:00:00+00:00")
    path = add_entries(bundle, [slower])
    assert load_certificate(bundle).entries == (SOUND, slower, elsewhere)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: text.replace('"schema_version": 1', '"schema_version": 2'),
        lambda text: text.replace('"passed": true', '"passed": "yes"'),
        lambda text: text.replace('"speed": 1.0', '"speed": true'),
        lambda text: text.replace('"flips": 0,', ""),
        lambda text: "\udc80",
    ],
)
def test_a_damaged_certificate_is_no_certificate(bundle: Bundle, damage: object) -> None:
    path = add_entries(bundle, [SOUND])
    changed = damage(path.read_text())  # type: ignore[operator]
    path.write_bytes(changed.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        choose(bundle)


def test_a_cache_that_cannot_be_written_is_an_output_error(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises((OutputError, InputError), match="certificate"):
        add_entries(bundle, [SOUND])


def prove(bundle: Bundle, clips: int = 1_440, **changes: object) -> None:
    """Write a certificate into the bundle that says FASTEST held its gate on labelled speech."""
    entry = {"backend": "fast", "precision": "bf16", "version": "1.0", "passed": True, "graphs": {}}
    speech = {"clips": clips, "outputs": [{"output": "fused", "flips": 2}]}
    content = {"schema_version": 1, "model_sha256": bundle.sha256, "entries": [{**entry, "speech": speech, **changes}]}
    (bundle.root / "certificate.json").write_text(json.dumps(content))


def test_a_lower_precision_that_the_bundle_proves_on_labelled_speech_is_taken(bundle: Bundle) -> None:
    add_entries(bundle, [SOUND, FASTER, FASTEST])
    try:
        prove(bundle)
        choice = choose(bundle)
        assert (choice.backend, choice.precision) == ("fast", "bf16")
        assert "bf16 flips 2 of 1,440 labels" in choice.reason
        assert chosen(bundle, "fp32") == ("fast", "fp32")
        for less in ({"clips": 100}, {"version": "2.0"}, {"passed": False}, {"backend": "slow"}):
            prove(bundle, **less)  # type: ignore[arg-type]
            assert chosen(bundle) == ("fast", "fp32")
    finally:
        (bundle.root / "certificate.json").unlink()


def test_auto_skips_what_cannot_run(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    backends(monkeypatch, broken="it is broken", abacus=None)
    assert chosen(bundle) == ("abacus", "fp32")


def test_no_backend_at_all_lists_every_reason(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    backends(monkeypatch, one="pip install one", two="pip install two")
    with pytest.raises(EngineError, match="one: pip install one; two: pip install two"):
        choose(bundle)


def test_without_a_certificate_onnxruntime_is_what_auto_picks(toy_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert chosen(toy_bundle) == ("onnxruntime", "fp32")
