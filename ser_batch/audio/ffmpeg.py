"""Recordings that FFmpeg decodes, through PyAV: what phones, browsers, cameras and telephone systems write.

The first audio stream of a container is read; video is skipped and never decoded. Only the demuxers listed here are
let in, and none may open anything but the file itself: a playlist of URLs is no recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from ser_batch.audio.container import check_wav_size, ends_with_page
from ser_batch.audio.lengths import TOLERANCES, promised_seconds
from ser_batch.clips import Waveform
from ser_batch.errors import AudioError

DEMUXERS = (
    *("wav", "w64", "aiff", "au", "caf", "flac", "ogg", "voc", "nistsphere", "ircam", "avr", "pvf"),
    *("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "avi", "flv", "mxf", "nut", "wtv", "rm", "dtshd", "oma"),
    *("wv", "tta", "ape", "dsf", "iff", "amr", "mpc", "mpc8", "tak", "shn", "qoa"),
)
"""Containers that are told by their first bytes, by FFmpeg's names."""
WEAK = {"mpeg audio": "mp3,aac", "adts": "aac", "ac3": "ac3,eac3", "dts": "dts", "mpegts": "mpegts", "mpeg": "mpeg"}
"""Kind -> demuxers that find frames in any noise: let in only where `formats.identify` found some, too."""
SEEKABLE = ("mov", "matroska", "wav", "w64", "aiff", "au", "caf", "flac", "wv", "tta", "ape", "dsf")
"""Demuxers that find a time, and know which one they found; in others, packets are passed over one by one."""
HEAD = 1 << 16
"""Bytes in which a header is looked for."""
PREROLL = 0.5
"""Seconds decoded before a stretch, so that the decoder is in the state in which it comes by there."""
GAP = 0.1
"""Seconds that timestamps may jump without silence being put in: sound that paused is not recorded by some."""
LONGEST_GAPS, LONGEST = 600.0, 24 * 3600.0
"""Seconds of silence put in, all together: where the container does not say that it is longer; whatever it says."""
DSD_RATE = 352_800
"""Hz at which DSD64, the slowest, is decoded."""
MAX_CHANNELS = 64
PLANES = 8
"""Channels from which on the planes of a frame are not asked for (PyAV 18.1)."""
UNFRAMED = 4 << 20
"""Bytes of unframed AAC that are decoded at once: some minutes."""
ZEROS = 1 << 16
"""Frames of silence put in at a time."""
LOST, FEW_LOST = 0.02, 2
"""Share and number of packets that may be undecodable in a stream of unknown length: its ends are often parts."""

Block = tuple[int, Waveform]
"""The frame of the recording that it begins with, and (n, channels) float32."""


class FfmpegSound:
    """A recording open in FFmpeg; see `sound.Sound`.

    Args:
        file: positioned anywhere; it stays the caller's.
        kind: what `formats.identify` says of it.

    Raises:
        AudioError: there is no audio in it that FFmpeg can decode.
    """

    decoder = "ffmpeg"

    def __init__(self, file: BinaryIO, kind: str) -> None:
        file.seek(0)
        self._file, self._kind, self._head = file, kind, file.read(HEAD)
        self.rate = self.channels = 0
        self.frames: int | None = None
        self._start: int | None = None
        """The timestamp of the first sample."""
        self._counted: int | None = None
        self._open()
        # Only what comes out says the rate and the channels: AAC may double either.
        self._left: Waveform | None = next(self._blocks, (0, None))[1]
        if self._left is None:
            self.close()
            self._check_lost()
            raise AudioError("holds no audio", got="0 frames")

    def _open(self) -> None:
        # Imported here: most recordings need none of it, and it takes a tenth of a second.
        import av
        from av.stream import Discard

        self._errors: tuple[type[Exception], ...] = (av.error.FFmpegError,)
        options = {"format_whitelist": ",".join((*DEMUXERS, WEAK.get(self._kind, "wav"))), "protocol_whitelist": "none"}
        if self._kind == "wav":
            # It is else searched at length for S/PDIF.
            options["probesize"] = str(HEAD)
        self._file.seek(0)
        try:
            self._container: Any = av.open(
                self._file, "r", container_options=options, metadata_errors="replace", io_open=_refuse
            )
        except self._errors as error:
            self._check_read()
            raise undecodable(error) from error
        streams = self._container.streams
        self._stream: Any = streams.audio[0] if streams.audio else None
        if self._stream is None or self._stream.codec_context is None:
            found = ", ".join(sorted({stream.type for stream in streams}))
            self.close()
            raise AudioError("holds no audio that FFmpeg knows", got=f"streams of {found}" if found else "no stream")
        for stream in streams:
            if stream is not self._stream:
                stream.discard = Discard.all
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = {"err_detect": "crccheck"}
        self.format: str = self._container.format.name.split(",")[0]
        self._time_base = Fraction(self._stream.time_base or 1)
        self._packets = self._lost = self._position = 0
        self._filled = 0.0
        self._origin = self._start
        """The timestamp that frame 0 would have."""
        self._rest: Waveform | None = None
        """What is past the end that the header gives: of the last packet, it is padding."""
        self._blocks = self._decoded()

    @property
    def is_one_bit(self) -> bool:
        """Whether the file holds DSD, whose bits come out as samples at an eighth of their rate; WavPack may, too."""
        codec: str = self._stream.codec_context.name
        return codec.startswith(("dsd", "dst")) or (codec == "wavpack" and self.rate % DSD_RATE == 0)

    def read(self, frames: int) -> Waveform:
        """See `sound.Sound.read`."""
        assert self._left is not None
        parts, held = [self._left], len(self._left)
        while held < frames:
            _, block = next(self._blocks, (0, None))
            if block is None:
                break
            parts.append(block)
            held += len(block)
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._left = joined[frames:]
        self._check_lost()
        return joined[:frames]

    def seek(self, frame: int) -> None:
        """See `sound.Sound.seek`."""
        # Timestamps of a chain of Ogg streams begin anew, so all of it is gone through.
        before = 0 if self.format == "ogg" else max(0, frame - round(PREROLL * self.rate))
        self._go_to(before)
        self._left = np.zeros((0, self.channels), np.float32)
        self._blocks = self._from(frame, self._decoded(before))

    def _go_to(self, frame: int) -> None:
        """Let the next packet be at or before a frame."""
        # The packets before the first frame, which prepare the decoder, have times before it.
        if frame and self.format in SEEKABLE and self._start is not None:
            time = self._start + self._ticks(frame)
            # What cannot be found by its time begins again.
            with suppress(*self._errors):
                self._container.seek(time, stream=self._stream, backward=True)
                self._origin, self._position = self._start, -1
                return
        self.close()
        self._open()

    @staticmethod
    def _from(frame: int, blocks: Iterator[Block]) -> Iterator[Block]:
        for begin, block in blocks:
            if begin + len(block) > frame:
                yield max(begin, frame), block[max(0, frame - begin) :]

    def check_complete(self, decoded: int, ended: bool) -> None:
        """See `sound.Sound.check_complete`."""
        position = self._file.tell()
        if self.format == "wav":
            check_wav_size(self._file, self._head)
        if self.format == "ogg" and not ends_with_page(self._file):
            raise AudioError("is truncated", got="a file that ends inside an Ogg page")
        # FFmpeg goes on from here.
        self._file.seek(position)
        if self.frames is None:
            return
        held = decoded if ended else self._last_packet(max(0, self.frames - 2 * self.rate))
        if held / self.rate < self.frames / self.rate - TOLERANCES[self.format]:
            raise AudioError(
                "is truncated",
                got=f"{held / self.rate:.3f} s that can be read",
                expected=f"{self.frames / self.rate:.3f} s by its header",
            )

    def length(self) -> int:
        """See `sound.Sound.length`."""
        if self._counted is None:
            estimate = (self._container.duration or 0) * self.rate // 1_000_000
            if self.frames is not None:
                self._counted = self.frames
            elif len(self._container.streams) > 1 and estimate:
                # Nobody waits for gigabytes of film to be passed over.
                self._counted = estimate
            else:
                self._counted = self._last_packet(0)
        return self._counted

    def _last_packet(self, begin: int) -> int:
        """Frame of the recording at which the last packet ends, found without decoding, from `begin` on."""
        end = counted = 0
        self._go_to(begin)
        if self.format in ("flac", "ogg") or self._is_unframed():
            # The packets of FLAC do not say how long they are, those of a chain of Ogg say it wrongly.
            with suppress(*self._errors):
                end = max((first + len(block) for first, block in self._decoded()), default=0)
            return end
        with suppress(*self._errors):
            for packet in self._demuxed():
                counted += packet.duration or 0
                if packet.size and packet.pts is not None and self._start is not None:
                    end = max(end, packet.pts - self._start + (packet.duration or 0))
        self._check_read()
        return self._frame_at(end or counted)

    def close(self) -> None:
        """Let go of the recording, and not of its file."""
        self._container.close()

    def _demuxed(self) -> Iterator[Any]:
        packets: Iterator[Any] = self._container.demux(self._stream)
        # At the end, PyAV stumbles over streams that came up on the way, as damage has it.
        with suppress(IndexError):
            yield from self._joined(packets) if self._is_unframed() else packets

    def _is_unframed(self) -> bool:
        """Whether this is AAC inside WAV without the frames of ADTS: only the decoder finds where one block ends."""
        if self.format != "wav" or self._stream.codec_context.name != "aac":
            return False
        data = self._head[self._head.find(b"data") + 8 :]
        return data[:1] != b"\xff" and self._container.size <= UNFRAMED

    def _joined(self, packets: Iterator[Any]) -> Iterator[Any]:
        import av

        packet = av.Packet(b"".join(bytes(each) for each in packets))
        packet.stream = self._stream
        yield packet

    def _decoded(self, begin: int = 0) -> Iterator[Block]:
        """The blocks of the recording; packets that end before the frame `begin` are passed over."""
        try:
            for packet in self._demuxed():
                if begin and self._ends_before(packet, begin):
                    continue
                self._packets += 1
                for frame in self._frames(packet):
                    yield from self._placed(frame)
        except self._errors as error:
            self._check_read()
            raise undecodable(error) from error
        self._check_read()

    def _ends_before(self, packet: Any, frame: int) -> bool:
        if packet.pts is None or not packet.duration or self._start is None:
            return False
        self._position = -1
        return self._frame_at(packet.pts - self._start + packet.duration) <= frame

    def _frame_at(self, ticks: int) -> int:
        """The frame at a time in units of the stream; in whole numbers, since there are fifty a second of these."""
        per = self._time_base.denominator
        return (ticks * self._time_base.numerator * self.rate + per // 2) // per

    def _ticks(self, frames: int) -> int:
        return int(Fraction(frames, self.rate) / self._time_base)

    def _frames(self, packet: Any) -> list[Any]:
        try:
            frames: list[Any] = packet.decode()
        except EOFError:
            return []
        except self._errors:
            self._lost += 1
            return []
        return frames

    def _placed(self, frame: Any) -> Iterator[Block]:
        """The samples of a frame, after the silence that its timestamp says comes before them."""
        block = _samples(frame)
        if not self.rate:
            self.rate, self.channels = frame.sample_rate, block.shape[1]
            seconds = promised_seconds(self._container, self._stream, self._head)
            self.frames = round(seconds * self.rate) if seconds else None
        if (frame.sample_rate, block.shape[1]) != (self.rate, self.channels):
            raise AudioError(
                "changes on the way",
                got=f"{frame.sample_rate} Hz and {block.shape[1]} channels",
                expected=f"{self.rate} Hz and {self.channels} channels, as at its start",
            )
        if frame.pts is not None:
            if self._origin is None:
                self._start = self._origin = frame.pts
            begin = self._frame_at(frame.pts - self._origin)
            if self._position < 0:
                # Packets were passed over: this is where that has led to.
                self._position = max(0, begin)
            gap = begin - self._position
            if gap > GAP * self.rate and not self._lost:
                yield from self._silence(gap)
            elif gap < -GAP * self.rate:
                # The next link of a chain begins at zero again.
                self._origin += self._ticks(gap)
        yield from self._sounding(block)

    def _sounding(self, block: Waveform) -> Iterator[Block]:
        if self._rest is not None:
            # There is more after the end that the header gives, so that it was not padding.
            yield self._position - len(self._rest), self._rest
            self._rest = None
        begin = max(0, self._position)
        self._position = begin + len(block)
        if self.format == "mov" and self.frames is not None and begin < self.frames < self._position:
            self._rest = block[self.frames - begin :]
            block = block[: self.frames - begin]
        yield begin, block

    def _silence(self, frames: int) -> Iterator[Block]:
        self._filled += frames / self.rate
        if self._filled > min(LONGEST, max(LONGEST_GAPS, (self._container.duration or 0) / 1e6)):
            raise AudioError("has timestamps that jump", got=f"{self._filled:.0f} s without sound")
        while frames > 0:
            some = min(frames, ZEROS)
            frames -= some
            yield from self._sounding(np.zeros((some, self.channels), np.float32))

    def _check_lost(self) -> None:
        allowed = max(FEW_LOST, LOST * self._packets) if self.frames is None else 0
        if self._lost > allowed:
            self._check_read()
            raise AudioError("is damaged", got=f"{self._lost} of {self._packets} packets that cannot be decoded")

    def _check_read(self) -> None:
        """FFmpeg takes a read that failed for the end of the file."""
        failure = getattr(self._file, "failure", None)
        if failure is not None:
            raise failure


def undecodable(error: Exception) -> AudioError:
    """What FFmpeg says of a file, as an error of this project."""
    return AudioError("cannot be decoded", got=getattr(error, "strerror", None) or str(error))


def _samples(frame: Any) -> Waveform:
    """A decoded frame as (n, channels) float32, full scale at 1.

    Raises:
        AudioError: it has more than `MAX_CHANNELS`.
    """
    channels = frame.layout.nb_channels
    if channels > MAX_CHANNELS:
        raise AudioError("has too many channels", got=channels, expected=f"{MAX_CHANNELS} at most")
    if frame.format.is_planar and channels >= PLANES:
        return _interleaved(frame)
    array = frame.to_ndarray()
    given = array.T if frame.format.is_planar else array.reshape(-1, channels)
    block: Waveform = given.astype(np.float32, copy=False)
    if array.dtype == np.uint8:
        block = (block - np.float32(128)) / np.float32(128)
    elif array.dtype.kind == "i":
        block = block / np.float32(-float(np.iinfo(array.dtype).min))
    return block


def _interleaved(frame: Any) -> Waveform:
    """The same of a frame with a plane for each of many channels: PyAV would read past the last one, and crash."""
    from av.audio.resampler import AudioResampler

    resampler = AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
    parts: list[Any] = [each.to_ndarray() for given in (frame, None) for each in resampler.resample(given)]
    return np.concatenate(parts, axis=1).reshape(-1, frame.layout.nb_channels)


def _refuse(*_: object) -> None:
    raise PermissionError("a recording may open no other file")
