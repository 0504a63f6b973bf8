"""Bounds the files of a bundle before they are archived: the largest are cut in the middle."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from pathlib import Path

from agent.collection.bounded_output import cut_marker
from agent.storage.durable_file import open_plain

COPY_BYTES = 1 << 20
# A cut is moved so far at most to fall between two lines, and by a quarter of what stays.
LINE_BYTES = 1 << 16


def fit(sizes: Mapping[str, int], budget: int, may_be_cut: Container[str]) -> dict[str, int]:
    """The files to shorten, and to how many bytes, so that all together have ``budget`` at most.

    Files above one common size are cut to it, smaller ones and those not in ``may_be_cut`` stay
    whole. Where these alone are too much, the others are cut to 0.
    """
    cuttable = {name: size for name, size in sizes.items() if name in may_be_cut}
    room = budget - (sum(sizes.values()) - sum(cuttable.values()))
    if sum(cuttable.values()) <= room:
        return {}
    limit = _common_limit(sorted(cuttable.values()), max(0, room))
    return {name: limit for name, size in cuttable.items() if size > limit}


def _common_limit(sizes: list[int], room: int) -> int:
    """The largest size with which all of ``sizes`` (ascending, together above ``room``) fit."""
    limit = 0
    for index, size in enumerate(sizes):
        limit = room // (len(sizes) - index)
        if size > limit:
            break
        room -= size
    return limit


def shorten(path: Path, limit: int) -> int:
    """Cut the plain file at ``path`` down to ``limit`` bytes, in place; how many were cut out.

    Beginning and end stay, about half of ``limit`` each and whole lines where these are not very
    long; a line between them tells what is missing. With a ``limit`` too small for that line
    nothing stays. Uses 1 MB of memory. Raises OSError; the file may then be damaged.
    """
    descriptor = open_plain(path, os.O_RDWR)
    try:
        size = os.fstat(descriptor).st_size
        if size <= limit:
            return 0
        room = limit - len(cut_marker(size))
        if room < 0:
            os.ftruncate(descriptor, 0)
            return size
        near = min(LINE_BYTES, room // 4)
        head = _line_end_before(descriptor, room // 2, near)
        tail = _line_start_after(descriptor, size - (room - room // 2), near)
        _close_gap(descriptor, cut_marker(tail - head), head, tail, size)
        return tail - head
    finally:
        os.close(descriptor)


def _line_end_before(descriptor: int, position: int, near: int) -> int:
    """Where the last line break before ``position`` is; ``position`` when there is none near."""
    found = os.pread(descriptor, near, position - near).rfind(b"\n")
    return position if found < 0 else position - near + found


def _line_start_after(descriptor: int, position: int, near: int) -> int:
    """Behind the first line break from ``position`` on; ``position`` when there is none near."""
    found = os.pread(descriptor, near, position).find(b"\n")
    return position if found < 0 else position + found + 1


def _close_gap(descriptor: int, marker: bytes, head: int, tail: int, size: int) -> None:
    """Put ``marker`` at ``head``, bytes ``tail`` to ``size`` behind it, and end the file there."""
    target = head + _write(descriptor, marker, head)
    while data := os.pread(descriptor, min(COPY_BYTES, size - tail), tail):
        target += _write(descriptor, data, target)
        tail += len(data)
    os.ftruncate(descriptor, target)


def _write(descriptor: int, data: bytes, position: int) -> int:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], position + written)
    return written
