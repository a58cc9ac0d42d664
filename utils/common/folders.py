"""Walk through a folder as people keep them: with links, hidden and closed folders in it."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHOWN = 10
"""Names that a list shows before it counts the rest."""


@dataclass
class Found:
    """What lies in a folder and below, as POSIX paths below it, sorted."""

    files: list[str] = field(default_factory=list)
    """Plain files, and links to them."""
    hidden: list[str] = field(default_factory=list)
    """Files and folders whose names begin with a dot; the folders were not entered."""
    special: list[str] = field(default_factory=list)
    """Pipes, sockets and devices."""
    closed: list[str] = field(default_factory=list)
    """Folders that may not be listed."""
    broken: list[str] = field(default_factory=list)
    """Links that lead nowhere, or in a circle of links."""
    repeated: list[str] = field(default_factory=list)
    """Links to folders that were read under another name."""


def walk_folder(root: Path) -> Found:
    """List what is in a folder and below; linked folders are entered, each folder once.

    A folder that is reached by its own path and by links is listed under its own path.

    Args:
        root: A folder, or a link to one.
    """
    found, seen = Found(), set()
    folders, links = [""], []
    while folders or links:
        if not folders:
            links.sort()
        name = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(root / name)
            identity = status.st_dev, status.st_ino
            if identity in seen:
                found.repeated.append(name)
                continue
            seen.add(identity)
            with os.scandir(root / name) as entries:
                listed = list(entries)
        except OSError:
            found.closed.append(name or ".")
            continue
        for entry in listed:
            path = f"{name}/{entry.name}" if name else entry.name
            _sort_in(entry, path, found, links if entry.is_symlink() else folders)
    for names in vars(found).values():
        names.sort()
    return found


def _sort_in(entry: os.DirEntry, path: str, found: Found, folders: list[str]) -> None:
    """Put an entry where it belongs, a folder among those that are still to be read."""
    if entry.name.startswith("."):
        found.hidden.append(path)
        return
    try:
        mode = entry.stat().st_mode
    except OSError:
        (found.broken if entry.is_symlink() else found.files).append(path)
        return
    if stat.S_ISDIR(mode):
        folders.append(path)
    elif stat.S_ISREG(mode):
        found.files.append(path)
    else:
        found.special.append(path)


def printable(name: str) -> str:
    """Return a name as one line of text, whatever bytes it is made of."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)


def one_line(error: BaseException, most: int = 300) -> str:
    """Return the message of an error on one line of so many characters at most."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def some(names: Sequence[str], shown: int = SHOWN) -> str:
    """List some names, and the number of the others."""
    rest = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(map(printable, names[:shown])) + rest
