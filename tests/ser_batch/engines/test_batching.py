from __future__ import annotations

import pytest

from ser_batch.engines.batching import Piece, pieces


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, (1, 8), [Piece(0, 1, 0)]),
        (2, (1, 8), [Piece(0, 2, 1)]),
        (8, (1, 8), [Piece(0, 8, 1)]),
        (9, (1, 8), [Piece(0, 8, 1), Piece(8, 9, 0)]),
        (20, (8,), [Piece(0, 8, 0), Piece(8, 16, 0), Piece(16, 20, 0)]),
        (70, (1, 8, 64), [Piece(0, 64, 2), Piece(64, 70, 1)]),
    ],
)
def test_pieces(count: int, sizes: tuple[int, ...], expected: list[Piece]) -> None:
    assert list(pieces(count, sizes)) == expected


def test_every_clip_is_in_one_piece_that_holds_it() -> None:
    sizes = (2, 3, 7)
    for count in range(1, 40):
        found = list(pieces(count, sizes))
        assert [index for piece in found for index in range(piece.start, piece.stop)] == list(range(count))
        assert all(piece.stop - piece.start <= sizes[piece.profile] for piece in found)
