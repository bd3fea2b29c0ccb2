"""The protocols: who is trained on, who is validated on, who is tested.

- `paper`: a random split of each emotion, 1147 / 143 / 150 (Table I). The other take of most test clips is in
  training, so its figures do not say how the model does on a new speaker.
- `emobox`: EmoBox's six speaker-independent folds of RAVDESS (Ma et al., Interspeech 2024).
- `sentence`: one of the two sentences is trained on, the other one tested.
- `speakers`: a tenth of the speakers, or one, is tested, another one validates.
- `given`: the parts in the split column of a table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ser_batch.errors import TrainingError
from training.data.corpus import Corpus

PARTS = ("train", "validation", "test")

EMOBOX_TEST_ACTORS = (
    (1, 11, 20, 21),
    (4, 10, 12, 14),
    (8, 9, 19, 23),
    (3, 5, 7, 24),
    (2, 15, 16, 18),
    (6, 13, 17, 22),
)
"""Test actors of EmoBox's folds 1 … 6 (reading notes, "The protocol question")."""

DRAWS = 100
"""Splits by speakers that are drawn until one has every label in each part."""


@dataclass(frozen=True)
class Split:
    """Indices into a corpus' examples, ascending; every example is in exactly one part."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def check(self, corpus: Corpus, *, speakers_apart: bool = False) -> Split:
        """This split, or TrainingError if it loses or repeats an example, a class or a speaker."""
        parts = {part: getattr(self, part) for part in PARTS}
        if sorted(i for part in parts.values() for i in part) != list(range(len(corpus))):
            raise TrainingError(f"split {self.name} does not hold every example exactly once")
        for part, members in parts.items():
            absent = _absent(corpus, members)
            if absent:
                names = ", ".join(corpus.labels[i] for i in absent)
                raise TrainingError(f"split {self.name} has no clip labelled {names} in its {part} part")
        if speakers_apart:
            self._check_speakers(corpus, parts)
        return self

    def _check_speakers(self, corpus: Corpus, parts: dict[str, tuple[int, ...]]) -> None:
        home: dict[str, str] = {}
        for part, members in parts.items():
            for i in members:
                speaker = corpus.examples[i].speaker
                if speaker is not None and home.setdefault(speaker, part) != part:
                    raise TrainingError(
                        f"speaker {speaker} is in the {home[speaker]} part and in the {part} part of {self.name}",
                        remedy="A speaker-independent split keeps each speaker in one part.",
                    )


def _absent(corpus: Corpus, members: tuple[int, ...]) -> list[int]:
    """Classes that no label of the members may mean; of joined corpora, which are tested on some classes, none."""
    if corpus.sets:
        return []
    return sorted(set(range(len(corpus.labels))) - set(corpus.targets[list(members)]))


def _split(name: str, corpus: Corpus, part_of: list[str]) -> Split:
    members = {part: tuple(i for i in range(len(corpus)) if part_of[i] == part) for part in PARTS}
    return Split(name, **members)


def paper_split(corpus: Corpus, seed: int = 0) -> Split:
    """Each emotion's clips, permuted with `seed` and cut at floor(0.8 n) and floor(0.9 n) (Table I)."""
    rng = np.random.default_rng(seed)
    part_of = [""] * len(corpus)
    for label in range(len(corpus.labels)):
        order = rng.permutation(np.flatnonzero(corpus.targets == label))
        first, second = len(order) * 8 // 10, len(order) * 9 // 10
        for part, members in zip(PARTS, np.split(order, [first, second]), strict=True):
            for i in members:
                part_of[i] = part
    return _split(f"paper-seed{seed}", corpus, part_of).check(corpus)


def emobox_split(corpus: Corpus, fold: int, seed: int = 0, validation_actors: int = 4) -> Split:
    """EmoBox's fold 1 … 6; it ships no validation part, so `validation_actors` of the training ones are drawn."""
    if not 1 <= fold <= len(EMOBOX_TEST_ACTORS):
        raise TrainingError("no such EmoBox fold", got=fold, expected="1 … 6")
    actors = {str(actor) for actors in EMOBOX_TEST_ACTORS for actor in actors}
    if {e.speaker for e in corpus.examples} != actors:
        raise TrainingError(
            "EmoBox's folds are of RAVDESS' 24 actors", got=f"the corpus {corpus.name} with other speakers"
        )
    test = {str(actor) for actor in EMOBOX_TEST_ACTORS[fold - 1]}
    rest = sorted(actors - test, key=int)
    validation = set(np.random.default_rng([seed, fold]).permutation(rest)[:validation_actors])
    part_of = [
        "test" if e.speaker in test else "validation" if e.speaker in validation else "train" for e in corpus.examples
    ]
    return _split(f"emobox-fold{fold}", corpus, part_of).check(corpus, speakers_apart=True)


def sentence_split(corpus: Corpus, sentence: str, seed: int = 0) -> Split:
    """Test on one sentence, train on the others; a tenth of each emotion's training clips validates."""
    unknown = next((e.file for e in corpus.examples if e.sentence is None), None)
    if unknown is not None:
        raise TrainingError("a sentence is held out, so each recording's must be known", got=f"none of {unknown}")
    sentences = sorted({str(e.sentence) for e in corpus.examples})
    if sentence not in sentences or len(sentences) < 2:
        raise TrainingError("the corpus has no such sentence to hold out", got=sentence, expected=sentences)
    rng = np.random.default_rng([seed, sentences.index(sentence)])
    part_of = ["test" if e.sentence == sentence else "train" for e in corpus.examples]
    for label in range(len(corpus.labels)):
        members = [i for i in np.flatnonzero(corpus.targets == label) if part_of[i] == "train"]
        for i in rng.permutation(members)[: max(1, len(members) // 10)]:
            part_of[i] = "validation"
    return _split(f"sentence-{sentence}", corpus, part_of).check(corpus)


def speaker_split(corpus: Corpus, seed: int = 0) -> Split:
    """A tenth of the speakers, one at least, tests, as many validate; drawn until each part has every label.

    Raises TrainingError where no draw does, or a speaker is not stated.
    """
    nameless = next((e.file for e in corpus.examples if e.speaker is None), None)
    if nameless is not None:
        raise TrainingError("speakers are kept apart, so each recording's must be known", got=f"none of {nameless}")
    speakers, rng = sorted({str(e.speaker) for e in corpus.examples}), np.random.default_rng(seed)
    share = max(1, len(speakers) // 10)
    for _ in range(DRAWS if len(speakers) > 2 else 0):
        order = [speakers[i] for i in rng.permutation(len(speakers))]
        home = dict.fromkeys(order, "train") | dict.fromkeys(order[:share], "test")
        home |= dict.fromkeys(order[share : 2 * share], "validation")
        found = _split(f"speakers-seed{seed}", corpus, [home[str(e.speaker)] for e in corpus.examples])
        if not any(_absent(corpus, getattr(found, part)) for part in PARTS):
            return found.check(corpus, speakers_apart=True)
    raise TrainingError(
        "no split keeps the speakers apart and has every label in each part",
        got=f"{len(speakers)} speakers, {DRAWS} draws",
        remedy="State a split in the table, or take --protocol paper, which does not keep them apart.",
    )


def given_split(corpus: Corpus) -> Split:
    """The parts in the table's split column; refused if a known speaker is in two of them."""
    unknown = {e.part for e in corpus.examples} - set(PARTS)
    if unknown:
        raise TrainingError("the table's split column", got=sorted(map(str, unknown)), expected=list(PARTS))
    # Of joined corpora each has said itself whether its parts share speakers (training.data.corpora).
    return _split("given", corpus, [str(e.part) for e in corpus.examples]).check(corpus, speakers_apart=not corpus.sets)


def splits_of(protocol: str, corpus: Corpus, seed: int = 0) -> list[Split]:
    """Every split: one for `paper`, `speakers` and `given`, six for `emobox`, one per sentence for `sentence`."""
    if protocol == "paper":
        return [paper_split(corpus, seed)]
    if protocol == "emobox":
        return [emobox_split(corpus, fold, seed) for fold in range(1, len(EMOBOX_TEST_ACTORS) + 1)]
    if protocol == "sentence":
        return [sentence_split(corpus, s, seed) for s in sorted({str(e.sentence) for e in corpus.examples})]
    if protocol == "speakers":
        return [speaker_split(corpus, seed)]
    if protocol == "given":
        return [given_split(corpus)]
    raise TrainingError("unknown protocol", got=protocol, expected="paper, emobox, sentence, speakers or given")


def folds_of(
    corpus: Corpus, split: Split, count: int, seed: int = 0, parts: tuple[str, ...] = ("train",)
) -> list[Split]:
    """The clips of `parts` of `split` in `count` folds, each the test part once and gone from its own part then.

    A fold meets its models as the split's own test part does: where the split keeps speakers apart so do the folds,
    otherwise each label's clips are permuted with `seed` and dealt out, part by part. Clips of no part are in no
    fold either.

    Of joined corpora each is a fold, whatever `count` says: what no model has heard is another corpus, not other clips.

    Raises TrainingError where a part has fewer speakers, or fewer clips of a label, than folds.
    """
    if corpus.sets:
        members = [i for part in parts for i in getattr(split, part)]
        names = list(dict.fromkeys(corpus.examples[i].corpus for i in members))
        _check_folds("corpora", len(names), 2)
        count, fold_of = len(names), {i: names.index(corpus.examples[i].corpus) for i in members}
        return _folds(split, fold_of, count)
    rng, apart = np.random.default_rng([seed, count]), speakers_apart(corpus, split)
    fold_of: dict[int, int] = {}
    for part in parts:
        fold_of |= _deal(corpus, part, getattr(split, part), count, rng, by_speaker=apart)
    return _folds(split, fold_of, count)


def _folds(split: Split, fold_of: dict[int, int], count: int) -> list[Split]:
    """The split without each fold in turn, which is tested; `fold_of` says which clips are in which."""
    return [
        Split(
            f"{split.name}-out-of-fold{fold}",
            train=tuple(i for i in split.train if fold_of[i] != fold),
            validation=tuple(i for i in split.validation if fold_of.get(i) != fold),
            test=tuple(i for i in sorted(fold_of) if fold_of[i] == fold),
        )
        for fold in range(count)
    ]


def _deal(
    corpus: Corpus, part: str, members: tuple[int, ...], count: int, rng: np.random.Generator, *, by_speaker: bool
) -> dict[int, int]:
    """Clip → fold, the clips of a part dealt out speaker by speaker or, within each label, clip by clip."""
    what = {"train": "training"}.get(part, part)
    if by_speaker:
        unit = {i: str(corpus.examples[i].speaker) for i in members}
        speakers = sorted(set(unit.values()))
        _check_folds(f"{what} speakers", len(speakers), count)
        dealt = {speakers[s]: n % count for n, s in enumerate(rng.permutation(len(speakers)))}
        return {i: dealt[speaker] for i, speaker in unit.items()}
    fold_of = {}
    for label in sorted({(corpus.examples[i].corpus or "", corpus.examples[i].label) for i in members}):
        clips = [i for i in members if (corpus.examples[i].corpus or "", corpus.examples[i].label) == label]
        _check_folds(f"{what} clips labelled {label[1]}", len(clips), count)
        fold_of |= {int(i): n % count for n, i in enumerate(rng.permutation(clips))}
    return fold_of


def speakers_apart(corpus: Corpus, split: Split) -> bool:
    """Whether every speaker is known and in one part only."""
    parts = [{corpus.examples[i].speaker for i in getattr(split, part)} for part in PARTS]
    known = None not in set().union(*parts)
    return known and sum(map(len, parts)) == len(set().union(*parts))


def _check_folds(what: str, found: int, count: int) -> None:
    if found < count:
        raise TrainingError(f"fewer {what} than folds", got=found, expected=f"{count} or more")


def other_take_share(corpus: Corpus, split: Split, parts: tuple[str, ...] = ("train",)) -> float | None:
    """Share of test clips whose other take (same speaker, sentence, emotion, intensity) is in the parts trained on.

    None where the corpus does not say of every clip what it is a take of.
    """
    if any(example.utterance is None for example in corpus.examples):
        return None
    trained = {corpus.examples[i].utterance for part in parts for i in getattr(split, part)}
    return float(np.mean([corpus.examples[i].utterance in trained for i in split.test]))
