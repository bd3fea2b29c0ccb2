"""The toolkit's errors: each message says what is wrong, what was given, what was expected, and what to do."""

from __future__ import annotations


class SerError(Exception):
    """Root of every error the toolkit raises on purpose; a CLI prints it and exits, a traceback means a bug.

    Args:
        what: one clause that names the thing and what is wrong with it.
        got: what was given or found, if that is not already in `what`.
        expected: what would have been right.
        remedy: what the user can do now.
    """

    def __init__(self, what: str, *, got: object = None, expected: object = None, remedy: str | None = None) -> None:
        self.what, self.got, self.expected, self.remedy = what, got, expected, remedy
        parts = [what]
        if got is not None:
            parts.append(f"got {got}")
        if expected is not None:
            parts.append(f"expected {expected}")
        message = "; ".join(parts)
        super().__init__(f"{message}. {remedy}" if remedy else message)


class InputError(SerError):
    """What the user asked for cannot be understood or found: a path, a manifest, a label, an option."""


class AudioError(SerError):
    """One recording cannot be decoded to finite samples.

    Args:
        path: of the recording; it stands once, at the start of the message.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str | None = None,
        got: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        self.reason = str(SerError(what, got=got, expected=expected, remedy=remedy))
        """The message without the path, for a row that names the recording already."""
        super().__init__(f"{path} {what}" if path else what, got=got, expected=expected, remedy=remedy)
        self.what = what


class StoreError(SerError):
    """An object store cannot be reached, refuses the keys or lacks the bucket; no single object is to blame."""


class BundleError(SerError):
    """A bundle is damaged, of an unknown schema, or does not match what it says it is."""


class EngineError(SerError):
    """A runtime is missing, refuses the model, or returns something other than probabilities."""


class OutputError(SerError):
    """The output cannot be written, exists already, or holds results of another configuration."""


class TrainingError(SerError):
    """A training run is misconfigured, or its data, split or checkpoint does not fit."""


class ExportError(SerError):
    """A trained run cannot be turned into an engine, or an engine is not equal to what was trained."""
