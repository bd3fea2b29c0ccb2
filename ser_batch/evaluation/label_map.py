"""From the labels that a corpus uses to those that a model knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ser_batch.errors import InputError
from ser_batch.evaluation.corpora import COMMON, CORPORA

EXPECTED = f"FROM=TO, with commas between several, or a corpus: {', '.join(CORPORA)}"


def parse_map(text: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Take `exc=happy,fru=,msp` apart: what was said of labels, and the corpora named. An empty TO leaves out.

    Raises:
        InputError: a part is neither.
    """
    said: dict[str, str] = {}
    corpora = []
    for part in filter(None, map(str.strip, text.split(","))):
        left, equals, right = (piece.strip() for piece in part.partition("="))
        if equals and left:
            if said.setdefault(left, right) != right:
                raise InputError(f"--map gives {left!r} two meanings", got=f"{said[left]} and {right}")
        elif part.lower() in CORPORA:
            corpora.append(part.lower())
        else:
            raise InputError(f"--map has a part that is none: {part!r}", expected=EXPECTED)
    return said, tuple(corpora)


class LabelMap:
    """What a label means to a model.

    Looked for in this order: what the user said, the model's own labels, the codes of the corpora named, the words
    of `corpora.COMMON`; each as it is written, and then without regard to case, blanks, hyphens and underscores.

    Args:
        labels: of the model.
        said: label -> label of the model (or a word that means one), or empty: left out.
        corpora: whose codes are understood.

    Raises:
        InputError: `said` leads to what the model does not know.
    """

    def __init__(self, labels: Sequence[str], said: Mapping[str, str], corpora: Sequence[str] = ()) -> None:
        self.labels = tuple(labels)
        own = {_forgiven(label): label for label in labels}
        # Labels that differ in case only are told apart as they are written.
        own = {key: label for key, label in own.items() if [_forgiven(each) for each in labels].count(key) == 1}
        groups = [{_forgiven(name), *map(_forgiven, words)} for name, words in COMMON.items()]
        common = {
            word: own[known[0]] for group in groups if len(known := sorted(group & set(own))) == 1 for word in group
        }
        self._known = common | own
        codes = {code: word for name in corpora for code, word in CORPORA[name].codes.items()}
        self._codes = {_forgiven(code): self._known.get(_forgiven(word), "") for code, word in codes.items()}
        self._said = {left: self._target(left, right) for left, right in said.items()}
        self._forgiven = {_forgiven(left): right for left, right in self._said.items()}
        self.read_as: Counter[tuple[str, str]] = Counter()
        """(label, what it was taken for): how often, where these differ."""

    def _target(self, left: str, right: str) -> str:
        target = right if right in self.labels else self._known.get(_forgiven(right), "")
        if right and not target:
            raise InputError(
                f"--map sends {left!r} to {right!r}, which the model does not know",
                expected=f"one of {', '.join(self.labels)}",
            )
        return target

    def merged(self) -> dict[str, str]:
        """Labels of the model itself that are sent to others: their probabilities are added to theirs."""
        return {left: right for left, right in self._said.items() if left in self.labels and right != left}

    def __call__(self, label: str) -> str | None:
        """The model's label that `label` means; None: it has none."""
        key = _forgiven(label)
        if label in self._said or label in self.labels:
            found = self._said.get(label, label)
        else:
            found = next((map_[key] for map_ in (self._forgiven, self._codes, self._known) if key in map_), "")
        found = self.merged().get(found, found)
        if found and found != label:
            self.read_as[label, found] += 1
        return found or None


def _forgiven(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())
