"""A folder is walked as people keep it: links once, hidden and closed folders named."""

import os
from pathlib import Path

import pytest

from utils.common.folders import Found, printable, some, walk_folder


def touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def test_plain_and_hidden_files(tmp_path):
    for name in (
        "b.png", "a/c.png", "B.png", ".hidden.png", ".ipynb_checkpoints/b-checkpoint.png",
        "a/.thumbnails/c.png", "a/._c.png", "folder.png/d.png",
    ):  # fmt: skip
        touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.png")
    assert walk_folder(tmp_path) == Found(
        files=["B.png", "a/c.png", "b.png", "folder.png/d.png"],
        hidden=[".hidden.png", ".ipynb_checkpoints", "a/._c.png", "a/.thumbnails"],
        special=["pipe.png"],
    )


def test_linked_folders_are_followed_once_and_loops_end(tmp_path):
    store, root = tmp_path / "store", tmp_path / "root"
    for name in ("NORMAL/a.png", "PNEUMONIA/sub/b.png"):
        touch(store / name)
    touch(root / "z/own.png")
    for name in ("NORMAL", "PNEUMONIA"):
        (root / name).symlink_to(store / name)
    (root / "Normal again").symlink_to(store / "NORMAL")
    (root / "first of z").symlink_to(root / "z")
    (root / "z" / "loop").symlink_to(root)
    (root / "linked.png").symlink_to(store / "NORMAL/a.png")
    (root / "dangling.png").symlink_to(root / "gone.png")
    (root / "me.png").symlink_to(root / "me.png")
    assert walk_folder(root) == Found(
        files=["NORMAL/a.png", "PNEUMONIA/sub/b.png", "linked.png", "z/own.png"],
        broken=["dangling.png", "me.png"],
        repeated=["Normal again", "first of z", "z/loop"],
    )
    (tmp_path / "way").symlink_to(root)
    assert walk_folder(tmp_path / "way") == walk_folder(root)


@pytest.mark.parametrize("name", ["closed", ""])
def test_closed_folders_are_named(tmp_path, monkeypatch, name):
    touch(tmp_path / "open.png")
    touch(tmp_path / "closed/a.png")
    scan = os.scandir

    def refuse(path):
        if Path(path) == tmp_path / name:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may list every folder
    found = walk_folder(tmp_path)
    assert found.closed == [name or "."]
    assert found.files == (["open.png"] if name else [])


def test_names_of_any_bytes_are_one_line(tmp_path):
    with open(os.fsencode(tmp_path) + b"/r\xf6ntgen\n\x1b.png", "wb"):
        pass
    assert [printable(name) for name in walk_folder(tmp_path).files] == [
        "r\\udcf6ntgen\\n\\x1b.png"
    ]
    assert printable("Ärzte 肺.png") == "Ärzte 肺.png"


def test_long_lists_are_counted():
    assert some(["a", "b"]) == "a, b"
    names = [f"{number}.png" for number in range(12)]
    assert some(names).endswith("8.png, 9.png and 2 more")
