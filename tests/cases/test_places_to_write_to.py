"""What stands at the place of an output is replaced where it is a file of its own, and otherwise kept."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from qspinn import cli
from qspinn.errors import ArtifactError
from qspinn.files import write_atomic


def test_links_stay_and_their_end_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    end, link, dangling = tmp_path / "far" / "end", tmp_path / "link", tmp_path / "dangling"
    end.write_bytes(b"old")
    link.symlink_to(end)
    dangling.symlink_to(tmp_path / "far" / "fresh")
    write_atomic(link, b"new")
    write_atomic(dangling, b"made")
    assert (link.is_symlink(), end.read_bytes()) == (True, b"new")
    assert (dangling.is_symlink(), (tmp_path / "far" / "fresh").read_bytes()) == (True, b"made")
    assert {p.name for p in (tmp_path / "far").iterdir()} == {"end", "fresh"}


def test_what_is_no_file_is_kept(tmp_path: Path) -> None:
    pipe, circle = tmp_path / "pipe", tmp_path / "circle"
    os.mkfifo(pipe)
    (tmp_path / "to-pipe").symlink_to(pipe)
    circle.symlink_to(circle)
    for place in (pipe, tmp_path / "to-pipe", circle, tmp_path, Path(), Path("/"), Path(".."), "", "a\0b"):
        with pytest.raises(ArtifactError, match="cannot be written"):
            write_atomic(place, b"new")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert {p.name for p in tmp_path.iterdir()} == {"pipe", "to-pipe", "circle"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["train", "e.toml", "--out", "e.toml"], "would be lost"),
        (["train", "e.toml", "--out", "link.toml"], "would be lost"),
        (["train", "e.toml", "--out", "."], "is a folder"),
        (["train", "e.toml", "--out", "folder"], "is a folder"),
        (["train", "e.toml", "--out", "/"], "is a folder"),
        (["train", "e.toml", "--out", ""], "is empty"),
        (["train", "e.toml", "--out", "pipe"], "is no regular file"),
        (["train", "e.toml", "--out", "e.toml/x"], "is no folder"),
        (["train", "e.toml", "--out", "x" * 300], "cannot be written to"),
        (["explore", "e.toml", "--out", "e.toml"], "is no folder"),
        (["sensitivity", "e.toml", "--out", "pipe"], "is no folder"),
        (["evaluate", "m.qspinn", "--out", "m.qspinn"], "would be lost"),
        (["evaluate", "m.qspinn", "--out", ".."], "a folder"),
        (["inspect", "m.qspinn", "--out", "m.qspinn"], "would be lost"),
        (["inspect", "m.qspinn", "--out", "pipe"], "file"),
        (["report", "run", "--out", "run/result.json"], "would be lost"),
        (["report", "run", "--out", "/"], "is a folder"),
    ],
)
def test_places_are_checked_before_the_work(
    arguments: list[str], word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.toml").write_text('name = "e"')
    (tmp_path / "link.toml").symlink_to("e.toml")
    (tmp_path / "m.qspinn").write_text("model")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    os.mkfifo("pipe")
    monkeypatch.setattr(sys, "argv", ["qspinn", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    told = capsys.readouterr().err
    assert (caught.value.code, "--out" in told, word in told) == (2, True, True), told
    assert (tmp_path / "e.toml").read_text() == 'name = "e"'
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
