"""A tiny corpus of synthetic recordings named like RAVDESS, for whole runs in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from support.toy_run import CLIP, CONTEXT, SPECTROGRAM
from training.config import RunConfig, Stage
from training.data.corpora import Corpora, load_corpora
from training.data.corpus import Corpus
from training.data.ravdess import parse
from training.data.splits import PARTS

STAGE = Stage("adamw", 1e-3, epochs=2, patience=2, monitor="accuracy", batch_size=16)
CONFIG = RunConfig(
    recipe="toy",
    clip=CLIP,
    context=replace(CONTEXT, hidden=(8, 8)),
    spectrogram=replace(SPECTROGRAM, feed_forward=16),
    context_stage=STAGE,
    spectrogram_stage=STAGE,
    fusion_stage=replace(STAGE, optimizer="adam", learning_rate=0.05, epochs=5),
)
BRIEF = replace(CONFIG, context_stage=replace(STAGE, epochs=1), spectrogram_stage=replace(STAGE, epochs=1))
"""For what a run leaves behind, whatever it has learnt."""


def write_corpus(root: Path, actors: tuple[int, ...] = (1, 2, 3), seed: int = 0) -> Corpus:
    """Write two takes of two sentences by each actor in two emotions, told apart by pitch, and return the corpus."""
    rng, files = np.random.default_rng(seed), []
    seconds = np.arange(2 * CLIP.samples) / CLIP.sample_rate
    for actor in actors:
        for emotion in (1, 2):
            for sentence in (1, 2):
                for take in (1, 2):
                    file = f"Actor_{actor:02}/03-01-{emotion:02}-01-{sentence:02}-{take:02}-{actor:02}.wav"
                    tone = np.sin(2 * np.pi * 300 * emotion**2 * seconds) + rng.normal(0, 0.3, len(seconds))
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    soundfile.write(root / file, (0.3 * tone).astype(np.float32), CLIP.sample_rate)
                    files.append(file)
    return Corpus("toy", root, ("neutral", "calm"), tuple(parse(file) for file in sorted(files)))


def write_corpora(folder: Path) -> Corpora:
    """Two corpora with the same sounds, one of which tells neutral from calm while the other calls both quiet."""
    entries = ['classes = ["neutral", "calm", "happy"]']
    for name, actors in {"fine": (1, 2, 3), "coarse": (4, 5, 6)}.items():
        examples = write_corpus(folder / name, actors).examples
        rows = [(e.file, e.label, e.speaker, PARTS[int(str(e.speaker)) % 3 - 1]) for e in examples]
        if name == "coarse":
            rows = [(file, {"neutral": "quiet", "calm": "happy"}[label], who, part) for file, label, who, part in rows]
        lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
        (folder / f"{name}.csv").write_text(f"path,label,speaker,split\n{lines}")
        entry = f'name = "{name}"\ndata = "{name}.csv"\nroot = "{name}"\nlicence = "CC0"\nrole = "train"\n'
        entries.append(f'[[corpus]]\n{entry}protocol = "given"\nlabels = {{ quiet = ["neutral", "calm"] }}')
    (folder / "corpora.toml").write_text("\n".join(entries))
    return load_corpora(folder / "corpora.toml")


def official_names() -> list[str]:
    """The 1,440 speech clips: every combination but neutral at strong intensity."""
    return [
        f"Actor_{actor:02}/03-01-{emotion:02}-{intensity:02}-{sentence:02}-{take:02}-{actor:02}.wav"
        for actor in range(1, 25)
        for emotion in range(1, 9)
        for intensity in ((1,) if emotion == 1 else (1, 2))
        for sentence in (1, 2)
        for take in (1, 2)
    ]
