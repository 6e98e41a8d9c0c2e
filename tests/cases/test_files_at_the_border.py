"""Files are written whole by any number of writers, keep their permissions, and are looked at before they are read."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import qspinn
from qspinn.errors import ArtifactError, WriteError
from qspinn.files import remove_parts, replacing, write_atomic
from qspinn.testing.programs import single


def test_writers_of_one_path_do_not_disturb_each_other(tmp_path: Path) -> None:
    contents = [bytes([65 + i]) * 200_000 for i in range(4)]
    path, seen, failed = tmp_path / "same", set(), []
    write_atomic(path, contents[0])
    over = threading.Event()

    def write(data: bytes) -> None:
        for _ in range(15):
            try:
                write_atomic(path, data)
            except WriteError as error:
                failed.append(str(error))

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    reader.join()
    assert not failed
    assert seen <= {*contents}
    assert [p.name for p in tmp_path.iterdir()] == ["same"]


def test_a_half_file_that_was_left_is_removed(tmp_path: Path) -> None:
    with replacing(tmp_path / "a"):
        (part,) = tmp_path.iterdir()
    assert not part.exists()
    part.write_bytes(b"half")
    remove_parts(tmp_path)
    assert not part.exists()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_that_is_replaced_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "a.qspinn"
    qspinn.save(single([[5]], winner=False), path)
    path.chmod(mode)
    qspinn.save(single([[6]], winner=False), path)
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, "x" * 242 + ".safetensors"])
def test_names_may_be_as_long_as_the_file_system_allows(name: str, tmp_path: Path) -> None:
    write_atomic(tmp_path / name, b"1")
    assert (tmp_path / name).read_bytes() == b"1"


@pytest.mark.parametrize("path", [None, 3, b"x.qspinn", "\ud800x", "", "a\0b"])
def test_what_is_no_path_is_refused_by_an_error_of_writing(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WriteError, match="cannot be written"):
        write_atomic(path, b"1")
    with pytest.raises(WriteError, match="cannot be written"):
        qspinn.program.file.save(single([[5]], winner=False), path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.qspinn", "a.safetensors"])
def test_files_that_cannot_be_read_whole_are_refused_before_they_are_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(15 << 40)
    for load in (qspinn.load, qspinn.networks.checkpoint.load):
        with pytest.raises(ArtifactError, match=r"larger than may be read.*bytes.; allowed: up to"):
            load(path)
    path.unlink()
    os.mkfifo(path)
    for load in (qspinn.load, qspinn.networks.checkpoint.load):
        with pytest.raises(ArtifactError, match="no regular file"):
            load(path)
