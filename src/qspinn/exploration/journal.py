"""Append-only journal of finished work: length and checksum per record, a torn tail is ignored.

Format: the file starts with the line ``qspinn-journal 1``; each record is its length, the length's complement and the
CRC-32 of the payload (4 bytes each, little-endian), then the payload, canonical JSON. One writer appends; a record is
written by a single call and synced.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec

from qspinn.errors import RunError

MAGIC = b"qspinn-journal 1\n"
HEAD = struct.Struct("<III")


def scan(data: bytes, where: str) -> tuple[list[dict[str, Any]], int]:
    """Records in a journal's bytes, and the length of the valid part.

    A record cut short at the end of the file is what a crash leaves and is dropped; so is one that ends in zeros, which
    a machine that loses power leaves where the file had grown and the data were not written. Damage before the end,
    where more bytes follow than an interrupted append can leave, is an error, and so is a whole record whose content is
    no JSON object: no interruption leaves that.

    Raises:
        RunError: not a journal, or damaged.
    """
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data):
            return [], 0
        raise RunError(where, "is not a journal of this version", got=data[:20], allowed=MAGIC.decode().strip())
    records: list[dict[str, Any]] = []
    at = len(MAGIC)
    while at < len(data):
        payload = _payload(data, at)
        record = None if payload is None else _record(payload)
        if payload is None or record is None:
            if payload is None and _is_torn_tail(data, at):
                break
            raise RunError(
                where,
                "is damaged",
                got=f"bad record at byte {at}",
                fix=f"cut the file to {at} bytes to keep the {len(records)} records before the damage",
            )
        records.append(record)
        at += HEAD.size + len(payload)
    return records, at


def _payload(data: bytes, at: int) -> bytes | None:
    if at + HEAD.size > len(data):
        return None
    length, complement, crc = HEAD.unpack_from(data, at)
    if length ^ complement != 0xFFFFFFFF:
        return None
    payload = data[at + HEAD.size : at + HEAD.size + length]
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def _record(payload: bytes) -> dict[str, Any] | None:
    """The record in a payload; None where it is no JSON object."""
    try:
        record = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_torn_tail(data: bytes, at: int) -> bool:
    """Whether the bytes from `at` are one append cut short: the announced record reaches beyond the end, or to it and
    ends in zeros, which no JSON does; or there are only zeros."""
    if at + HEAD.size > len(data) or not any(data[at:]):
        return True
    length, complement, _ = HEAD.unpack_from(data, at)
    end = at + HEAD.size + length
    return bool(
        length ^ complement == 0xFFFFFFFF and (end > len(data) or (end == len(data) and length and data[-1] == 0))
    )


class Journal:
    """A journal opened for appending; `records` holds what was there.

    Only one process may have it open: an advisory lock is taken, and released by the system when the process dies.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = _locked(path)
        data = path.read_bytes()
        try:
            self.records, valid = scan(data, str(path))
        except RunError:
            self.close()
            raise
        if valid < len(data) or not data:
            self._file.truncate(valid)
        self._file.seek(0, os.SEEK_END)
        if valid == 0:
            self._write(MAGIC)

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record; it is on disk when this returns."""
        payload = msgspec.json.encode(record, order="sorted")
        self._write(HEAD.pack(len(payload), len(payload) ^ 0xFFFFFFFF, zlib.crc32(payload)) + payload)
        self.records.append(record)

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(
                str(self.path),
                "cannot be written",
                got=error.strerror,
                fix="free some space and run the same command again: it continues",
            ) from None

    def close(self) -> None:
        """Closes the file, which frees the run's folder for others."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _locked(path: Path) -> BinaryIO:
    import fcntl

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise RunError(
            str(path), "cannot be opened", got=error.strerror, fix="choose another folder with --out"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise RunError(
            str(path.parent),
            "another process is working in this folder",
            fix="wait for it, or choose another folder with --out",
        ) from None
    return file
