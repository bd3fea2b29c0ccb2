from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ser_batch.bundle import Bundle, add_artefacts, copy_bundle
from ser_batch.clips import ClipRule
from ser_batch.errors import EngineError, InputError
from ser_batch.verification.auto import ENOUGH_CLIPS, Proof, choose, proofs
from ser_batch.verification.records import add_machine_entries, machine_certificate_path
from support.certificates import SOUND, entry_of, speech_of, write_certificate
from support.toy import make_toy_bundle

SMALL = ClipRule(sample_rate=8_000, samples=8_000)
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
    assert "not verified on this machine; ser-batch verify" in choice.reason


def test_auto_is_the_fastest_that_passed_and_says_why(bundle: Bundle) -> None:
    add_machine_entries(bundle, [SOUND, FASTER, FASTEST])
    choice = choose(bundle)
    assert (choice.backend, choice.precision) == ("fast", "fp32")
    assert choice.reason == f"the fastest verified here: {FASTER.speed:.2f} x onnxruntime fp32, 2026-11-22"


def test_a_lower_precision_must_be_asked_for_however_fast_it_is(bundle: Bundle) -> None:
    add_machine_entries(bundle, [SOUND, FASTEST])
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
    add_machine_entries(bundle, [SOUND, dataclasses.replace(FASTER, **changes)])
    assert chosen(bundle) == ("slow", "fp32")


def test_the_default_is_kept_where_it_is_the_fastest(bundle: Bundle) -> None:
    add_machine_entries(bundle, [SOUND, dataclasses.replace(FASTER, speed=0.8)])
    assert chosen(bundle) == ("slow", "fp32")


def test_a_precision_narrows_the_choice(bundle: Bundle) -> None:
    assert chosen(bundle, "bf16") == ("fast", "bf16")
    add_machine_entries(bundle, [SOUND, FASTER, FASTEST])
    assert chosen(bundle, "fp32") == ("fast", "fp32")
    with pytest.raises(EngineError, match=r"no backend here runs in that precision; got int8.*fast: fp32, bf16"):
        choose(bundle, precision="int8")


def test_what_failed_is_not_taken_even_where_nothing_passed(bundle: Bundle) -> None:
    failed = dataclasses.replace(SOUND, passed=False)
    add_machine_entries(bundle, [failed])
    assert chosen(bundle) == ("fast", "fp32")
    add_machine_entries(bundle, [dataclasses.replace(FASTER, passed=False)])
    with pytest.raises(EngineError, match="every backend here failed ser-batch verify"):
        choose(bundle)
    assert choose(bundle, "slow").backend == "slow"


def test_another_bundle_s_certificate_counts_for_nothing(bundle: Bundle, tmp_path: Path) -> None:
    add_machine_entries(bundle, [SOUND, FASTEST])
    other = make_toy_bundle(tmp_path / "other", clip=SMALL, seed=1)
    assert chosen(other) == ("slow", "fp32")
    machine_certificate_path(other).write_bytes(machine_certificate_path(bundle).read_bytes())
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        choose(other)


def test_a_damaged_certificate_is_refused(bundle: Bundle) -> None:
    add_machine_entries(bundle, [SOUND]).write_text("{")
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        choose(bundle)


def test_a_lower_precision_that_the_bundle_proves_on_labelled_speech_is_taken(own: Bundle) -> None:
    add_machine_entries(own, [SOUND, FASTER, FASTEST])
    proven = entry_of(precision="bf16", speech=speech_of(1_440, 2))
    write_certificate(own, proven)
    choice = choose(own)
    assert (choice.backend, choice.precision) == ("fast", "bf16")
    assert "bf16 flips 2 of 1,440 labels" in choice.reason
    assert chosen(own, "fp32") == ("fast", "fp32")
    for less in ({"speech": speech_of(100, 2)}, {"version": "2.0"}, {"passed": False}, {"backend": "slow"}):
        write_certificate(own, dataclasses.replace(proven, **less))  # type: ignore[arg-type]
        assert chosen(own) == ("fast", "fp32")


GRAPH = "precisions/int8/wav2vec2.onnx"


@pytest.fixture
def own(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle of one's own, to put a certificate into."""
    return add_artefacts(copy_bundle(bundle, tmp_path / "own"), {GRAPH: b"graph"})


def test_without_a_certificate_nothing_is_proven(own: Bundle) -> None:
    assert proofs(own) == {}


def test_what_passed_on_labelled_speech_is_proven(own: Bundle) -> None:
    write_certificate(own, entry_of(speech=speech_of(ENOUGH_CLIPS, 3), graphs={GRAPH: own.manifest.files[GRAPH]}))
    assert proofs(own) == {("fast", "int8", "1.0"): Proof(ENOUGH_CLIPS, 3)}


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": False},
        {"speech": None},
        {"speech": speech_of(ENOUGH_CLIPS - 1, 0)},
        {"graphs": {GRAPH: 64 * "0"}},
        {"graphs": {"precisions/int8/absent.onnx": 64 * "0"}},
    ],
    ids=["failed", "reference clips only", "too few clips", "another graph", "a graph that is gone"],
)
def test_anything_less_is_not(own: Bundle, changes: dict[str, object]) -> None:
    sound = entry_of(speech=speech_of(ENOUGH_CLIPS, 3), graphs={GRAPH: own.manifest.files[GRAPH]})
    write_certificate(own, dataclasses.replace(sound, **changes))  # type: ignore[arg-type]
    assert proofs(own) == {}


def test_a_damaged_certificate_in_the_bundle_is_refused(own: Bundle) -> None:
    write_certificate(own).write_text("{}")
    with pytest.raises(InputError, match=r"certificate .*Delete it"):
        proofs(own)


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
