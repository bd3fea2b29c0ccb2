"""How long a container says that its sound is, as far as FFmpeg hands on what is written there.

Where nothing is written, FFmpeg estimates a length from the bit rate; a recording cannot fall short of an estimate, so
it counts as unknown.
"""

from __future__ import annotations

from typing import Any

TOLERANCES = {
    **dict.fromkeys(("wav", "w64", "aiff", "au", "flac", "wv", "tta", "ape", "dsf", "tak", "qoa"), 0.02),
    **{"mov": 0.05, "mp3": 0.05, "caf": 0.1, "matroska": 0.1, "asf": 0.5, "mpc8": 0.05},
}
"""Demuxer, by the first of its names -> seconds that a recording may fall short of its header. Others do not know."""


def promised_seconds(container: Any, stream: Any, head: bytes) -> float | None:
    """Seconds of sound by the header; None where it does not say.

    Args:
        container: av.container.InputContainer.
        stream: the av.AudioStream of it that is read.
        head: the first bytes of the file.
    """
    kind = container.format.name.split(",")[0]
    whole = (container.duration or 0) / 1e6
    if kind == "matroska":
        # The header's length is that of the longest stream.
        alone = len(container.streams) == 1 and _has_duration(head)
        return _clock(stream.metadata.get("DURATION", "")) or (whole if alone else None)
    if kind == "asf":
        return whole
    if kind not in TOLERANCES or not stream.duration or not _is_written(kind, stream, head):
        return None
    if kind == "caf" and stream.codec_context.name.startswith("pcm"):
        # The duration is that of what is there, the frames are those of the header.
        return float(stream.frames / stream.codec_context.sample_rate)
    return float(stream.duration * stream.time_base)


def _is_written(kind: str, stream: Any, head: bytes) -> bool:
    """Whether the length is no estimate: an MP4 may be a series of fragments, an MP3 may have no header of its own."""
    if kind == "mov":
        return b"mvex" not in head and b"moof" not in head
    if kind == "wav":
        return bool(stream.codec_context.name.startswith("pcm_"))
    return kind != "mp3" or any(word in head for word in (b"Xing", b"Info", b"VBRI"))


def _has_duration(head: bytes) -> bool:
    """Whether a Matroska file says how long it is: the element Duration (0x4489), a float of 4 or 8 bytes."""
    return b"\x44\x89\x88" in head or b"\x44\x89\x84" in head


def _clock(text: str) -> float | None:
    """Seconds of "00:01:02.500000000"."""
    try:
        hours, minutes, seconds = text.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return None
