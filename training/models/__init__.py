"""The models: front-ends, pretrained encoders, the two branches and their fusion."""

from __future__ import annotations

import importlib.util
import sys
import types


def repair_torchaudio() -> None:
    """Make `import torchaudio` work beside a CPU build of torch; call before importing transformers or torchaudio.

    torchaudio's wheel links CUDA's libraries; beside a torch without them its import fails, and takes the import of
    transformers' models with it (transformers imports torchaudio wherever it is installed). Everything used of it is
    Python, so its compiled part is declared absent, as it is in torchaudio's own builds without one.
    """
    if "torchaudio" in sys.modules or importlib.util.find_spec("torchaudio") is None:
        return
    try:
        import torchaudio  # noqa: F401
    except OSError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        extension = types.ModuleType("torchaudio._extension")
        extension._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        extension._IS_RIR_AVAILABLE = False  # type: ignore[attr-defined]
        extension._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
        extension.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
        extension.lazy_import_sox_ext = lambda: None  # type: ignore[attr-defined]
        sys.modules["torchaudio._extension"] = extension
