"""MODEL_CARD.md, written from a run: every figure comes from the run's own measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ser_batch import strict_json
from ser_batch.bundle.fusion import FUSED
from ser_batch.bundle.trust import Trust
from ser_batch.errors import ExportError, InputError
from training.robustness.report import Report, markdown, read

Figures = Mapping[str, Any]
"""One output's `ser_batch.evaluation.metrics.Evaluation` as plain values."""
ORIGIN = ("bundle_id", "backend", "precision")
"""What the card shows of where an evaluation comes from."""
FIGURES = ("clips", "accuracy", "accuracy_interval", "ua", "ua_interval")
"""What the card shows of each output."""

CORPORA: Mapping[str, str] = {
    "ravdess": (
        "RAVDESS, speech part (Livingstone and Russo, PLOS ONE 13(5): e0196391, 2018, "
        "doi 10.1371/journal.pone.0196391): 24 professional actors, two sentences, acted, North American English."
    ),
}
LICENCES: Mapping[str, str] = {
    "ravdess": (
        "Model weights trained on RAVDESS (Livingstone and Russo, 2018), which is licensed CC BY-NC-SA 4.0: "
        "non-commercial use, attribution, share alike. The code is Apache-2.0; these weights are not."
    ),
}
"""Corpus → note. The note says what the corpus asks; it is not legal advice."""
BACKBONES: Mapping[str, str] = {
    "openai/whisper-base": (
        "The context branch holds weights of Whisper base (Radford et al., arXiv 2212.04356), which OpenAI gives away "
        "under the MIT licence: Copyright (c) 2022 OpenAI, https://github.com/openai/whisper/blob/main/LICENSE, to be "
        "passed on with them."
    ),
}
"""Encoder → note, of an encoder whose weights are in the bundle."""
PROTOCOLS: Mapping[str, str] = {
    "paper": (
        "A random split of each emotion. Training and test share their actors, and of most test clips the other take "
        "of the same sentence is in training."
    ),
    "emobox": "A speaker-independent fold of EmoBox: no test actor is in training.",
    "sentence": "One of the two sentences is trained on and the other tested; the actors are the same.",
    "speakers": "No speaker of the test is in training.",
    "given": "The parts that the corpus' own manifest states.",
}
CORPUS_LIMITS: Mapping[str, Sequence[str]] = {
    "ravdess": (
        "It was trained on 24 actors who acted eight emotions in two sentences of North American English. Acted "
        "emotion is clearer than felt emotion; other languages, accents, ages, rooms and microphones are new to it.",
    ),
}
PROTOCOL_LIMITS: Mapping[str, Sequence[str]] = {
    "paper": (
        "The random split shares actors between training and test. The figures above do not say how the model does "
        "on new speakers, other languages or spontaneous speech: expect less.",
    ),
    "emobox": ("The figures above hold for new actors of the same corpus, not for spontaneous speech.",),
    "speakers": ("The figures above hold for new speakers of the same corpus, not for another one.",),
    "sentence": ("The figures above do not say how the model does on new speakers or spontaneous speech.",),
}
LIMITS: Sequence[str] = (
    "It always names one of its labels, also for silence, music or noise: read the score beside the label.",
    "A label says how a voice resembles the training clips, not what a person feels. It is not for decisions about "
    "people: not for hiring, policing, schooling, health or credit.",
)

SEVERAL = (
    "Most of what it was trained on is acted, read and recorded for the purpose. Expect less of spontaneous speech, "
    "and of languages, rooms and microphones that are new to it: the figures on unseen corpora say how much less."
)
REFIT = (
    "Once the validation clips had chosen, both branches were trained on them too: only the test clips are new to them."
)


def model_card(
    test: Mapping[str, Figures],
    provenance: Mapping[str, Any],
    *,
    labels: Sequence[str],
    licence: str,
    command: str,
    other_speech: Sequence[Mapping[str, Any]] = (),
    unheard: Mapping[str, Mapping[str, Figures]] | None = None,
    robustness: Report | None = None,
    trust: Trust | None = None,
) -> str:
    """The model card as Markdown.

    Args:
        test: output (each branch in the fusion's order, then "fused") → its figures on the test clips.
        command: what trains the run again.
        other_speech: evaluations of other speech, as `read_evaluation` gives them.
        unheard: corpus that the run was tested on and not trained on → output → its figures.
        robustness: what `ser-train robustness` measured, as `read_robustness` gives it.
        trust: what is known of corpora that the model was not trained on.
    """
    sections = {
        f"Model card: {provenance['recipe']}": _summary(provenance, labels),
        "Test figures": f"{_figures(test)}\n\n{_recalls(test)}",
        "Unseen corpora": "\n\n".join([_trust(trust or Trust()), *([_unheard(unheard)] if unheard else [])]),
        **({"Other speech": _other_speech(other_speech)} if other_speech else {}),
        **({"Recordings as users have them": markdown(robustness)} if robustness else {}),
        "Data and split": _data(provenance),
        "Training": _training(provenance, command),
        "Licence": licence,
        "Limits": "\n".join(f"- {limit}" for limit in _limits(provenance)),
    }
    (title, summary), *rest = sections.items()
    return "\n\n".join([f"# {title}", summary, *(f"## {head}\n\n{body}" for head, body in rest)]) + "\n"


def licence_note(provenance: Mapping[str, Any], given: str | None = None) -> str:
    """The note for a run's weights: the one `given`, the run's own (`licence`), or that of its corpus (`data`).

    That of its encoder follows, where it is known.

    Raises:
        ExportError: none of them is known; a bundle is not made without one.
    """
    note = given or provenance.get("licence") or _licences(provenance) or LICENCES.get(str(provenance.get("data")))
    if not note:
        raise ExportError(
            "the licence of the trained weights is not known",
            got=f"a run on {provenance.get('data')!r}",
            expected=f"a corpus with a known licence ({', '.join(LICENCES)})",
            remedy="State it with --licence.",
        )
    encoder = BACKBONES.get(provenance.get("config", {}).get("context", {}).get("backbone"))
    return f"{note} {encoder}" if encoder else str(note)


def _licences(provenance: Mapping[str, Any]) -> str:
    """The note for weights that several corpora trained, and those that its encoder heard; empty without corpora."""
    corpora: Mapping[str, Mapping[str, Any]] = provenance.get("corpora", {})
    if not corpora:
        return ""
    heard = provenance.get("distillation", {}).get("corpora", {})
    # An encoder of before 2026-11-26 names the corpora alone.
    others = {name: heard[name] for name in heard if name not in corpora} if isinstance(heard, Mapping) else {}
    terms = "; ".join(f"{name}: {found['licence']}" for name, found in corpora.items())
    speech = "; ".join(f"{name}: {licence}" for name, licence in others.items())
    return (
        f"Model weights trained on several corpora, whose terms all apply (not legal advice): {terms}. "
        + (f"The encoder also learnt from the speech, without labels, of {speech}. " if speech else "")
        + "The code is Apache-2.0; these weights are not."
    )


def read_evaluation(path: Path, labels: Sequence[str], branches: Sequence[str]) -> dict[str, Any]:
    """What `ser-batch evaluate --json` wrote of other speech, by a model with these labels and branches.

    Raises:
        InputError: the file cannot be read, is no evaluation, or is one of another model.
    """
    try:
        found: dict[str, Any] = strict_json.parse(path.read_bytes(), str(path), InputError)
        origin = found["provenance"]
        theirs = {name: list(json.loads(origin[name])) for name in ("labels", "branches")}
        outputs = set(found["models"])
        missing = {"truth"} - {*found} | {*ORIGIN} - {*origin}
        missing |= {name for model in found["models"].values() for name in FIGURES if name not in model}
        if missing:
            raise KeyError(*sorted(missing))
    except (OSError, InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be read as an evaluation",
            got=error,
            expected="what ser-batch evaluate --json wrote",
        ) from error
    ours = {"labels": list(labels), "branches": list(branches)}
    if theirs != ours or outputs != {FUSED, *branches}:
        raise InputError(f"{path} is an evaluation of another model", got=theirs, expected=ours)
    return found


def read_robustness(path: Path, labels: Sequence[str], branches: Sequence[str]) -> Report:
    """What `ser-train robustness --out` wrote of a model with these labels and branches.

    Raises:
        InputError: the file cannot be read, is no such report, or is one of another model.
    """
    found = read(path)
    ours, theirs = (tuple(labels), {FUSED, *branches}), (found.labels, set(found.rows[0].outputs))
    if theirs != ours:
        raise InputError(f"{path} is a report on another model", got=theirs, expected=ours)
    return found


def _summary(provenance: Mapping[str, Any], labels: Sequence[str]) -> str:
    clip = provenance["config"]["clip"]
    return (
        f"Maps one clip of speech ({clip['samples'] / clip['sample_rate']:g} s at {clip['sample_rate']} Hz) to "
        f"probabilities of {len(labels)} emotions: {', '.join(labels)}. Two branches, a speech encoder (the context "
        "branch) and a log-mel CNN-Transformer (`spectrogram`), are fused by a logistic regression over their "
        f"probabilities.\n\n{_origin(provenance)}"
    )


def _origin(provenance: Mapping[str, Any]) -> str:
    context, distilled = provenance["config"]["context"], provenance.get("distillation")
    if distilled:
        layers = " and ".join(map(str, distilled["layers"]))
        return (
            f"The context branch (`{context['name']}`) starts from an encoder of this project that was trained to give "
            f"the frames of layers {layers} of `{distilled['teacher']}`, on {distilled['clips']:,} clips without their "
            f"labels ({', '.join(distilled['corpora'])}). It holds no weights of `{distilled['teacher']}`."
        )
    if context["backbone"] == "scratch":
        return (
            f"The context branch (`{context['name']}`) is trained from scratch on this corpus alone: it is **not** "
            "pretrained, and not comparable with a pretrained encoder of the same family."
        )
    backbone = _short_name(context["backbone"])
    return (
        f"The context branch (`{context['name']}`) starts from the pretrained `{backbone}`, whose own licence applies "
        "as well."
    )


def _short_name(name: str) -> str:
    """A hub's name as it is; of a path its last part, all that it says on another machine."""
    return PurePath(name).name if name.startswith(("/", ".", "~")) else name


def _figures(test: Mapping[str, Figures]) -> str:
    header = ["", "accuracy", "95 % interval", "right", "UA", "macro F1", "calibration error"]
    rows = [
        [
            _shown(output),
            _percent(f["accuracy"]),
            _interval(f["accuracy_interval"]),
            f"{f['correct']} of {f['clips']}",
            _percent(f["ua"]),
            _percent(f["macro"]["f1"]),
            f"{f['ece']:.3f}",
        ]
        for output, f in test.items()
    ]
    note = "UA is unweighted average recall; the interval is Wilson's, over clips and not over speakers."
    return f"{_table(header, rows)}\n\n{note}"


def _recalls(test: Mapping[str, Figures]) -> str:
    """Recall of each label: what an average hides."""
    per_output = {output: {c["label"]: c for c in f["classes"]} for output, f in test.items()}
    (_, first), *_ = per_output.items()
    rows = [
        [label, str(entry["support"]), *(_percent(classes[label]["recall"]) for classes in per_output.values())]
        for label, entry in first.items()
    ]
    return _table(["recall of", "clips", *per_output], rows)


def _trust(trust: Trust) -> str:
    said = f"{str(trust)[:1].upper()}{str(trust)[1:]}."
    if trust.bandwidth_hz:
        said += (
            f" Recordings with nothing above {trust.bandwidth_hz / 1000:.3g} kHz are unlike those it was trained on."
        )
    return said


def _unheard(unheard: Mapping[str, Mapping[str, Figures]]) -> str:
    """UA on each corpus that was only tested on, among its own labels."""
    outputs, rows = list(next(iter(unheard.values()))), []
    for name, of in unheard.items():
        fused = of[FUSED]
        found = [_percent(of[output]["ua"]) for output in outputs]
        facts = [str(fused["clips"]), str(len(fused["labels"]))]
        rows.append([name, *facts, *found, _interval(fused["ua_interval"]), f"{fused['ece']:.2f}"])
    table = _table(["UA on", "clips", "labels", *map(_shown, outputs), "95 %", "calibration error"], rows)
    return f"{table}\n\nNever trained on, and asked for their own labels alone."


def _other_speech(evaluations: Sequence[Mapping[str, Any]]) -> str:
    header = ["", "clips", "accuracy", "95 % interval", "UA", "95 % interval"]
    parts = []
    for found in evaluations:
        rows = [
            [
                _shown(output),
                str(f["clips"]),
                _percent(f["accuracy"]),
                _interval(f["accuracy_interval"]),
                _percent(f["ua"]),
                _interval(f["ua_interval"]),
            ]
            for output, f in found["models"].items()
        ]
        origin = found["provenance"]
        source = f"`{origin['bundle_id']}` with {origin['backend']} {origin['precision']}"
        parts.append(f"Truth: {_short_name(found['truth'])}. Scored by bundle {source}.\n\n{_table(header, rows)}")
    return "\n\n".join(parts)


def _data(provenance: Mapping[str, Any]) -> str:
    data, protocol, split = str(provenance["data"]), str(provenance["protocol"]), provenance["split"]
    counts = ", ".join(f"{split[part]} {part}" for part in ("train", "validation", "test"))
    # A bundle of before `refit` existed does not name it.
    refit = f" {REFIT}" if provenance["config"].get("refit") else ""
    if "corpora" in provenance:
        rows = [[name, ", ".join(found["labels"]), found["licence"]] for name, found in provenance["corpora"].items()]
        return (
            f"{counts} clips of several corpora.{refit} A label that a corpus lacks was neither rewarded nor punished "
            f"by its clips.\n\n{_table(['corpus', 'labels', 'terms'], rows)}"
        )
    return (
        f"{CORPORA.get(data, f'Corpus `{data}`.')}\n\n"
        f"Protocol `{protocol}`, split `{split['name']}`: {counts} clips. {PROTOCOLS[protocol]}{refit}"
    )


def _training(provenance: Mapping[str, Any], command: str) -> str:
    environment = provenance["environment"]
    processor, commit = environment["processor"] or "an unnamed processor", environment["git"] or "unknown"
    packages = ", ".join(f"{name} {found}" for name, found in environment["packages"].items() if found)
    return (
        f"Recipe `{provenance['recipe']}`, seed {provenance['seed']}. Every setting is in `manifest.json` under "
        "`provenance.config`. To train it again:\n\n"
        f"    {command}\n\n"
        f"Trained with Python {environment['python']}, {packages} on {processor}; code at commit {commit} (a `+` marks "
        "later changes)."
    )


def _limits(provenance: Mapping[str, Any]) -> list[str]:
    data, protocol = str(provenance["data"]), str(provenance["protocol"])
    if "corpora" in provenance:
        return [SEVERAL, *LIMITS]
    return [*CORPUS_LIMITS.get(data, ()), *PROTOCOL_LIMITS.get(protocol, ()), *LIMITS]


def _shown(output: str) -> str:
    return f"**{output}**" if output == FUSED else output


def _interval(bounds: Sequence[float]) -> str:
    return f"{100 * bounds[0]:.1f} – {_percent(bounds[1])}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ruler, *rows))
