"""The journal under torn writes, damage and rivals."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from qspinn.errors import RunError
from qspinn.exploration.journal import HEAD, MAGIC, Journal, scan

RECORDS = [
    {"kind": "run", "key": "é", "n": 1},
    {"kind": "candidate", "key": "k", "accuracy": 0.97},
    {"a": [1, None]},
    {},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with all records."""
    path = tmp_path / "run" / "journal"
    with Journal(path) as journal:
        for record in RECORDS:
            journal.append(record)
        assert journal.records == RECORDS
    return path


def test_records_come_back(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.records == RECORDS
        journal.append({"more": True})
    with Journal(path) as journal:
        assert journal.records == [*RECORDS, {"more": True}]


def test_every_truncation_keeps_a_prefix_and_can_go_on(path: Path) -> None:
    data, lengths = path.read_bytes(), []
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        with Journal(path) as journal:
            kept = list(journal.records)
            journal.append({"after": cut})
        assert kept == RECORDS[: len(kept)]
        lengths.append(len(kept))
        with Journal(path) as journal:
            assert journal.records == [*kept, {"after": cut}]
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (0, len(RECORDS))
    assert set(lengths) == set(range(len(RECORDS) + 1))


def test_every_flipped_bit_is_reported(path: Path) -> None:
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in range(8):
            damaged = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
            with pytest.raises(RunError) as caught:
                scan(damaged, "here")
            assert caught.value.where == "here"


def test_damage_names_the_byte_where_the_file_can_be_cut(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)
    message = r"bad record at byte (\d+)'; fix: cut the file to \1 bytes to keep the 3"
    with pytest.raises(RunError, match=message) as caught:
        Journal(path)
    cut = int(str(caught.value).split("byte ")[1].split("'")[0])
    path.write_bytes(data[:cut])
    with Journal(path) as journal:
        assert journal.records == RECORDS[:3]


@pytest.mark.parametrize(
    "payload", [b"[1, 2]", b"3", b"null", b'"run"', b"{", b"\xff\xfe", b"", b"{} {}", b'{"a": NaN}', b"[" * 100_000]
)
def test_a_whole_record_that_is_no_json_object_is_damage(path: Path, payload: bytes) -> None:
    good = path.read_bytes()
    record = HEAD.pack(len(payload), len(payload) ^ 0xFFFFFFFF, zlib.crc32(payload)) + payload
    path.write_bytes(good + record)
    message = rf"is damaged; got 'bad record at byte {len(good)}'; fix: cut the file"
    with pytest.raises(RunError, match=message) as caught:
        Journal(path)
    assert caught.value.where == str(path)
    path.write_bytes(good)
    with Journal(path) as journal:
        assert journal.records == RECORDS


def test_a_damaged_journal_is_left_as_it_is_and_not_held(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + 20] ^= 1
    path.write_bytes(data)
    held = []
    for _ in range(2):  # the second time would say "another process" if the first had kept the lock
        with pytest.raises(RunError, match="is damaged") as caught:
            Journal(path)
        held.append(caught)  # keeps the traceback, and with it whatever the constructor left open
    assert path.read_bytes() == data


@pytest.mark.parametrize("content", [b"something else\n", b"qspinn-journal 2\n", b"\0" * 40])
def test_foreign_files_are_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(RunError, match="not a journal of this version"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_second_writer_is_refused(path: Path) -> None:
    with Journal(path), pytest.raises(RunError, match="another process is working in this folder"):
        Journal(path)
    with Journal(path) as journal:
        assert journal.records == RECORDS


def test_a_writer_in_another_process_is_refused_and_its_death_frees_the_folder(path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from qspinn.exploration.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(RunError, match="another process"):
            Journal(path)
        process.kill()
        process.wait()
    with Journal(path) as journal:
        assert journal.records == RECORDS


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match=r"cannot be opened.*--out"):
        Journal(tmp_path / "file" / "journal")


def test_a_full_disk_is_an_error_and_the_next_open_recovers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with Journal(path) as journal:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"No space left on device.*it continues"):
            journal.append({"lost": 1})
        assert journal.records == RECORDS
        monkeypatch.undo()
    with Journal(path) as journal:
        assert journal.records[:4] == RECORDS


FULL = """
import resource, signal, sys
from pathlib import Path
from qspinn.errors import RunError
from qspinn.exploration.journal import Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Journal(Path(sys.argv[1])) as journal:
    journal.append({"key": "a"})
    size = Path(sys.argv[1]).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 200))
    try:
        journal.append({"key": "b" * 100})
    except RunError as error:
        print(error)
    assert Path(sys.argv[1]).stat().st_size == size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200, size + 200))
    journal.append({"key": "c"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, size + 200))
    journal.append({"key": "d" * 100})
"""


def test_a_record_that_found_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "journal")], capture_output=True, text=True, check=False
    )
    assert "it continues" in done.stdout
    assert done.stderr.strip().splitlines()[-1].startswith("qspinn.errors.RunError")
    with Journal(tmp_path / "journal") as journal:
        assert journal.records == [{"key": "a"}, {"key": "c"}]
