"""Neither the level nor the offset of a recording changes what a branch says of it; silence stays finite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from support.toy_encoders import ARCHITECTURES  # noqa: E402
from training.config import ContextConfig, LogMelConfig, SpectrogramConfig  # noqa: E402
from training.models.context import ContextBranch  # noqa: E402
from training.models.frontends import Centre, LogMel  # noqa: E402
from training.models.spectrogram import SpectrogramBranch  # noqa: E402

RATE, SAMPLES, LENGTH = 48_000, 96_000, 66_000
SMALL = SpectrogramConfig(channels=(4, 8, 8, 8), layers=1, feed_forward=32)
BRANCHES = ["spectrogram", "wav2vec2", "wavlm", "whisper", "as it is"]
CHANGES = {
    "40 dB quieter": (0.01, 0.0),
    "12 dB louder": (4.0, 0.0),
    "on 5 %": (1.0, 0.05),
    "on -0.5 %": (1.0, -0.005),
    "on 5 %, then quieter": (0.1, 0.05),
}


def speech() -> torch.Tensor:
    """Harmonics that glide under syllables, at the level of a quiet recording: two clips, and one that is padded."""
    time, rng = np.arange(SAMPLES) / RATE, np.random.default_rng(0)
    clips = []
    for pitch, speed in ((120, 3), (210, 5), (160, 4)):
        phase = 2 * np.pi * pitch * (time + 0.02 * np.sin(2 * np.pi * time))
        voice = sum(np.sin(k * phase) / k for k in range(1, 30)) * (1 - np.cos(2 * np.pi * speed * time))
        clips.append(0.01 * voice + 1e-4 * rng.standard_normal(SAMPLES))
    clips[2][LENGTH:] = 0
    return torch.from_numpy(np.stack(clips).astype(np.float32))


def changed(clips: torch.Tensor, gain: float, offset: float) -> torch.Tensor:
    """The clips as if their recordings had been offset, then made louder: past a recording's end there are zeros."""
    moved = gain * (clips + offset)
    moved[2, LENGTH:] = 0
    return moved


def make(name: str) -> torch.nn.Module:
    """An untrained branch whose probabilities tell clips apart."""
    torch.manual_seed(0)
    if name == "spectrogram":
        branch = SpectrogramBranch(SMALL, 8, SAMPLES).eval()
        branch.standardise.fit(branch.features(speech()))
        branch.classifier.weight.data.mul_(20)
        return branch
    normalise = False if name == "as it is" else None
    architecture = ARCHITECTURES["wav2vec2-large" if name == "as it is" else name]
    branch = ContextBranch(ContextConfig(backbone="scratch", architecture=architecture, normalise=normalise), 8).eval()
    with torch.no_grad():  # what all clips have in common is taken off
        pooled = branch.classifier[:-1](branch._pool(_hidden(branch, speech())))
        branch.classifier[-1].weight.mul_(1 / float(pooled.std(dim=0).norm()))
        branch.classifier[-1].bias.copy_(-branch.classifier[-1].weight @ pooled.mean(dim=0))
        for parameter in branch.classifier[-1].parameters():
            parameter.mul_(15)
    return branch


def _hidden(branch: ContextBranch, clips: torch.Tensor) -> torch.Tensor:
    hidden = branch.family.embed(branch.encoder, branch.features(clips))
    *_, last = branch._outputs(hidden, 0, branch.depth)
    return last


@pytest.mark.parametrize("name", BRANCHES)
def test_neither_level_nor_offset_change_a_probability(name: str) -> None:
    branch, clips = make(name), speech()
    with torch.no_grad():
        expected = branch(clips).softmax(dim=1)
        assert (expected[0] - expected[1]).abs().max() > 0.05, "the branch does not tell clips apart"
        for what, (gain, offset) in CHANGES.items():
            found = branch(changed(clips, gain, offset)).softmax(dim=1)
            torch.testing.assert_close(
                found, expected, atol=1e-3, rtol=0, msg=lambda text, what=what: f"{what}: {text}"
            )
        for silent in (torch.zeros(1, SAMPLES), torch.full((1, SAMPLES), 0.05)):
            assert torch.isfinite(branch(silent)).all()


def test_the_ancestors_front_end_hears_the_volume_knob() -> None:
    """Guards the guard: the changes are large enough to show."""
    torch.manual_seed(0)
    mel = LogMelConfig(reference="full scale")
    branch, clips = SpectrogramBranch(replace(SMALL, mel=mel), 8, SAMPLES).eval(), speech()
    branch.standardise.fit(branch.features(clips))
    branch.classifier.weight.data.mul_(20)
    with torch.no_grad():
        expected = branch(clips).softmax(dim=1)
        for gain, offset in (CHANGES["40 dB quieter"], CHANGES["on 5 %"]):
            assert (branch(changed(clips, gain, offset)).softmax(dim=1) - expected).abs().max() > 0.02


def test_the_mean_is_the_recordings_and_its_padding_stays_zero() -> None:
    clip = torch.tensor([[1.0, 0.0, 2.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0, 3.0, 3.0], [0.0] * 6])
    expected = torch.tensor([[0.0, -1.0, 1.0, 0.0, 0.0, 0.0], [0.0] * 6, [0.0] * 6])
    torch.testing.assert_close(Centre()(clip), expected, atol=1e-6, rtol=0)


def test_relative_decibels_are_the_absolute_ones_below_the_loudest() -> None:
    clips = speech()
    absolute = LogMel(LogMelConfig(reference="full scale"))(Centre()(clips))
    found = LogMel(LogMelConfig(dynamic_range=50.0))(clips)
    expected = absolute - absolute.amax(dim=(1, 2), keepdim=True)
    assert expected.min() < -60
    torch.testing.assert_close(found, expected.clamp(min=-50), atol=1e-3, rtol=0)
    assert (LogMel(LogMelConfig())(torch.zeros(1, SAMPLES)) + 80).abs().max() < 1e-4
