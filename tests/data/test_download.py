"""What `make data` accepts is whole; everything else is refused and leaves nothing behind."""

import errno
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pooch
import pytest
from kagglesdk import kaggle_env
from PIL import Image

from tests import hard_inputs
from tests.http_server import Fault, serve
from utils.common.constants import CLASS_NAMES
from utils.common.files import file_sha256, read_json, write_json
from utils.common.paths import ROOT
from utils.common.study import load_study
from utils.data import archive as module_of_archive
from utils.data import download as module
from utils.data import medmnist as module_of_medmnist
from utils.data.archive import COPY, ELSEWHERE, METADATA, NO_IMAGE, ONLY_IN_COPY, is_kept
from utils.data.checks import FetchError
from utils.data.download import data_set_present, fetch, main
from utils.data.images import DatasetError, load_image
from utils.data.index import build_index, parse_name, patient_number, split_level
from utils.data.medmnist import download_medmnist, write_medmnist_images
from utils.data.sources import KAGGLE_COUNTS, KAGGLE_HANDLE

NAMES = (
    "train/NORMAL/IM-0001-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0001-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person2_virus_1.jpeg",
    "test/NORMAL/IM-0002-0001.jpeg",
    "test/PNEUMONIA/person3_virus_1.jpeg",
)
VAL_NAMES = ("val/NORMAL/IM-0003-0001.jpeg", "val/PNEUMONIA/person4_virus_1.jpeg")
SMALL_COUNTS = {
    "train": {"NORMAL": 2, "PNEUMONIA": 2},
    "val": {"NORMAL": 1, "PNEUMONIA": 1},
    "test": {"NORMAL": 1, "PNEUMONIA": 1},
}


def image_bytes(number: int = 0, mode: str = "L", image_format: str = "JPEG") -> bytes:
    random = np.random.default_rng(number)
    dtype, top = (np.uint16, 65536) if mode == "I;16" else (np.uint8, 256)
    shape = (24, 24) if mode in ("L", "I;16") else (24, 24, len(mode))
    stream = io.BytesIO()
    Image.fromarray(random.integers(0, top, shape, dtype)).save(stream, image_format)
    return stream.getvalue()


def small_files(names: tuple[str, ...] = NAMES, base: str = "chest_xray/") -> dict[str, bytes]:
    return {base + name: image_bytes(number) for number, name in enumerate(names)}


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def images_below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob("*/*/*"))


def assert_nothing_left(root: Path) -> None:
    assert not root.exists() and not data_set_present(root)
    left = {path.name for path in root.parent.iterdir()} - {f"{root.name}.refused.json"}
    assert left <= {f".{root.name}.lock"}


@pytest.fixture
def root(tmp_path):
    """Return a data set root whose parent holds nothing else."""
    return tmp_path / "data" / "chest_xray"


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "xray.zip", small_files())


# Archives


def test_a_zip_becomes_a_data_set(root, archive):
    record = fetch(root, archive=archive)
    assert images_below(root) == sorted(NAMES)
    assert data_set_present(root) and record == read_json(root / "source.json")
    assert record["source"] == "archive" and record["split"] == "patient-level split"
    assert record["archive_sha256"] == file_sha256(archive)
    assert record["images"] == 6 and record["counts"]["test"] == {"NORMAL": 1, "PNEUMONIA": 1}
    report = read_json(root / "report.json")
    assert report["entries"] == 6 and report["modes"] == {"L": 6}
    assert report["skipped"] == report["refused"] == report["converted_when_read"] == {}
    assert "not the complete data set of Kaggle" in report["warnings"][0]


def test_the_content_hash_does_not_depend_on_the_packing(root, archive, tmp_path):
    folder = write_files(tmp_path / "unpacked", small_files(base=""))
    first, second = fetch(root, archive=archive), fetch(root.with_name("other"), archive=folder)
    assert first["content_sha256"] == second["content_sha256"]
    assert second["archive_sha256"] is None


def test_the_complete_data_set_gives_no_warning(root, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KAGGLE_COUNTS", SMALL_COUNTS)
    fetch(root, archive=write_zip(tmp_path / "a.zip", small_files(NAMES + VAL_NAMES)))
    report = read_json(root / "report.json")
    assert report["warnings"] == [] and report["counts"]["val"] == {"NORMAL": 1, "PNEUMONIA": 1}


def test_the_quirks_of_kaggles_archive_are_handled_and_listed(root, tmp_path):
    files = small_files() | small_files(base="chest_xray/chest_xray/")
    files |= {
        "chest_xray/__MACOSX/chest_xray/train/NORMAL/._IM-0001-0001.jpeg": b"\0\5\x16\7",
        "__MACOSX/._chest_xray": b"\0\5\x16\7",
        "chest_xray/.DS_Store": b"Bud1",
        "chest_xray/train/NORMAL/.DS_Store": b"Bud1",
    }
    fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    assert images_below(root) == sorted(NAMES)
    report = read_json(root / "report.json")
    assert report["entries"] == 16
    assert {reason: len(names) for reason, names in report["skipped"].items()} == {
        METADATA: 4,
        COPY: 6,
    }
    assert all(name.startswith("chest_xray/chest_xray/") for name in report["skipped"][COPY])


def test_copies_that_differ_are_refused(root, tmp_path):
    files = small_files() | small_files(base="chest_xray/chest_xray/")
    files["chest_xray/chest_xray/test/NORMAL/IM-0002-0001.jpeg"] = image_bytes(99)
    with pytest.raises(FetchError, match=r"chest_xray/chest_xray/test.*differs from chest_xray/te"):
        fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    assert_nothing_left(root)
    refused = read_json(root.with_name("chest_xray.refused.json"))["refused"]
    assert list(refused) == ["chest_xray/chest_xray/test/NORMAL/IM-0002-0001.jpeg"]


def test_names_that_differ_in_case_alone_are_refused(root, tmp_path):
    files = small_files() | {"chest_xray/train/NORMAL/im-0001-0001.JPEG": image_bytes(99)}
    with pytest.raises(FetchError, match="which has the same name"):
        fetch(root, archive=write_zip(tmp_path / "a.zip", files))


def test_an_image_in_the_inner_copy_alone_is_warned_of(root, tmp_path):
    files = small_files() | small_files(base="chest_xray/chest_xray/")
    extra = "chest_xray/chest_xray/train/NORMAL/IM-0009-0001.jpeg"
    fetch(root, archive=write_zip(tmp_path / "a.zip", files | {extra: image_bytes(99)}))
    report = read_json(root / "report.json")
    assert report["skipped"][ONLY_IN_COPY] == [extra]
    assert any(extra in warning for warning in report["warnings"])


def test_two_data_sets_in_one_folder_are_refused(root, tmp_path):
    folder = write_files(tmp_path / "both", small_files())
    write_files(folder, {"phantoms/train/NORMAL/IM-0009-0001.jpeg": image_bytes(9)})
    with pytest.raises(FetchError, match=r"two different data sets, phantoms/train and chest_xray"):
        fetch(root, archive=folder)


def test_suffixes_and_folders_in_either_case_are_taken(root, tmp_path):
    files = small_files() | {
        "chest_xray/train/NORMAL/IM-0005-0001.JPG": image_bytes(50),
        "chest_xray/TRAIN/Pneumonia/person5_virus_1.Png": image_bytes(51, image_format="PNG"),
        "chest_xray\\test\\NORMAL\\IM-0006-0001.JPEG": image_bytes(52),
    }
    fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    assert set(images_below(root)) - set(NAMES) == {
        "train/NORMAL/IM-0005-0001.JPG",
        "train/PNEUMONIA/person5_virus_1.Png",
        "test/NORMAL/IM-0006-0001.JPEG",
    }


def test_unusual_pixels_are_listed_kept_and_readable(root, tmp_path):
    extra = {
        "train/NORMAL/IM-0005-0001.png": image_bytes(50, "I;16", "PNG"),
        "train/NORMAL/IM-0006-0001.png": image_bytes(51, "RGBA", "PNG"),
        "train/NORMAL/IM-0007-0001.jpeg": image_bytes(52, "RGB"),
    }
    files = small_files() | {f"chest_xray/{name}": content for name, content in extra.items()}
    fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    report = read_json(root / "report.json")
    assert report["converted_when_read"] == {
        "RGBA: transparent parts shown on white": ["train/NORMAL/IM-0006-0001.png"],
    }
    assert report["modes"] == {"L": 6, "I;16": 1, "RGBA": 1, "RGB": 1}
    for name, content in extra.items():
        assert (root / name).read_bytes() == content
        assert load_image(root / name).shape == (224, 224, 3)


def test_what_is_no_image_by_name_or_place_is_listed_and_warned_of(root, tmp_path):
    files = small_files() | {
        "chest_xray/notes.txt": b"hello",
        "chest_xray/train/NORMAL/IM-0009-0001.nii": b"n+1",
        "cover.png": image_bytes(9, image_format="PNG"),
    }
    fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    report = read_json(root / "report.json")
    assert report["skipped"] == {
        NO_IMAGE: ["chest_xray/notes.txt", "chest_xray/train/NORMAL/IM-0009-0001.nii"],
        ELSEWHERE: ["cover.png"],
    }
    assert sum("left out" in warning for warning in report["warnings"]) == 2


TRUNCATED = image_bytes(7)[:-120]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train/NORMAL/IM-0009-0001.jpeg", TRUNCATED, "truncated"),
        ("train/NORMAL/IM-0009-0001.jpeg", b"", "it is empty"),
        ("train/NORMAL/IM-0009-0001.png", b"<html>Sign in</html>", "it is a web page"),
        (
            "train/NORMAL/IM-0009-0001.png",
            image_bytes(7, "L", "PNG")[:-60],
            "truncated|broken|Truncated|damaged",
        ),
        ("train/NORMAL/scan.jpeg", image_bytes(7), "its name says no patient"),
        ("train/NORMAL/person9_virus_1.jpeg", image_bytes(7), "name belongs to the other class"),
        ("train/person9_virus_1.jpeg", image_bytes(7), "not in a folder NORMAL or PNEUMONIA"),
        ("train/COVID/IM-0009-0001.jpeg", image_bytes(7), "not in a folder NORMAL or PN"),
    ],
)
def test_damaged_and_misplaced_images_are_refused_by_name(root, tmp_path, name, content, reason):
    files = small_files() | {f"chest_xray/{name}": content}
    remedy = {
        "its name says no patient": r"restore the original names \(.*make predict",
        "name belongs to the other class": "move them to the folder of their class",
        "not in a folder NORMAL or PNEUMONIA": "move them to a folder NORMAL or PNEUMONIA",
        "not in a folder NORMAL or PN": "move them to a folder NORMAL or PNEUMONIA",
    }.get(reason, "download it again")
    with pytest.raises(FetchError, match=rf"{name} \(.*({reason}).*{remedy}") as error:
        fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    assert ("download it again" in str(error.value)) == (remedy == "download it again")
    with pytest.raises(FetchError):
        fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    assert_nothing_left(root)
    refused = read_json(root.with_name("chest_xray.refused.json"))["refused"]
    assert len(refused) == 1 and next(iter(refused)).endswith(name)


def test_the_list_of_refusals_goes_when_the_data_set_comes(root, tmp_path, archive):
    files = small_files() | {"train/NORMAL/IM-0009-0001.jpeg": TRUNCATED}
    with pytest.raises(FetchError):
        fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    fetch(root, archive=archive)
    assert not root.with_name("chest_xray.refused.json").exists()


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (NAMES[:4], "test/NORMAL and test/PNEUMONIA"),
        (NAMES[:5], "test/PNEUMONIA"),
        (NAMES[2:], "train/NORMAL"),
        (NAMES + VAL_NAMES[:1], "val/PNEUMONIA"),
        ((), "train/NORMAL and train/PNEUMONIA"),
    ],
)
def test_a_missing_class_is_refused(root, tmp_path, names, missing):
    with pytest.raises(FetchError, match=rf"no images in {missing} \(found"):
        fetch(root, archive=write_zip(tmp_path / "a.zip", small_files(names)))
    assert_nothing_left(root)


def test_an_image_in_train_and_test_is_warned_of(root, tmp_path):
    files = small_files() | {"chest_xray/test/NORMAL/IM-0009-0001.jpeg": image_bytes(0)}
    fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    assert "1 images of test are in train" in read_json(root / "report.json")["warnings"][-2]


@pytest.mark.parametrize(
    "name",
    [
        "../train/NORMAL/IM-0009-0001.jpeg",
        "chest_xray/../../train/NORMAL/IM-0009-0001.jpeg",
        "/tmp/train/NORMAL/IM-0009-0001.jpeg",
        "..\\train\\NORMAL\\IM-0009-0001.jpeg",
        "C:\\train\\NORMAL\\IM-0009-0001.jpeg",
        "train/NORMAL/..",
    ],
)
def test_entries_that_lead_outside_are_refused_before_anything_is_written(root, tmp_path, name):
    before = set(tmp_path.rglob("*"))
    path = write_zip(tmp_path / "a.zip", small_files() | {name: image_bytes(7)})
    with pytest.raises(FetchError, match=r"a\.zip: entry .* leads outside .* you trust"):
        fetch(root, archive=path)
    lock = root.parent / ".chest_xray.lock"
    assert set(tmp_path.rglob("*")) - before == {path, root.parent, lock}


def test_a_link_in_a_zip_is_refused(root, archive):
    link = zipfile.ZipInfo("chest_xray/train/NORMAL/IM-0009-0001.jpeg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr(link, "/etc/passwd")
    with pytest.raises(FetchError, match="is a link; nothing was unpacked"):
        fetch(root, archive=archive)
    assert_nothing_left(root)


def test_broken_links_are_refused(root, tmp_path):
    folder = write_files(tmp_path / "unpacked", small_files())
    (folder / "link").symlink_to("missing.jpeg")
    with pytest.raises(FetchError, match="link is a broken link; remove it"):
        fetch(root, archive=folder)


def test_linked_folders_are_followed_once(root, tmp_path):
    store = write_files(tmp_path / "store", small_files(base=""))
    folder = tmp_path / "linked"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / split).symlink_to(store / split)
    (store / "train" / "loop").symlink_to(folder)
    fetch(root, archive=folder)
    assert images_below(root) == sorted(NAMES)
    assert not any(path.is_symlink() for path in root.rglob("*"))


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Return an unpacked archive that may not be written to, as data sets are mounted on Kaggle."""
    files = small_files(NAMES + VAL_NAMES)
    files |= small_files(NAMES + VAL_NAMES, "chest_xray/chest_xray/")
    files["chest_xray/__MACOSX/._chest_xray"] = b"\0\5\x16\7"
    folder = write_files(tmp_path / "input" / "chest-xray-pneumonia", files)
    # root may write whatever the permissions say, but to no read-only mount
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(folder))
    return folder


def test_a_folder_that_may_not_be_written_to_is_linked_to(root, mounted, monkeypatch, caplog):
    monkeypatch.setattr(module, "KAGGLE_COUNTS", SMALL_COUNTS)
    full = SimpleNamespace(free=0)
    monkeypatch.setattr(module_of_archive.shutil, "disk_usage", lambda _: full)
    with caplog.at_level("INFO", module.logger.name):
        record = fetch(root, archive=mounted)
    assert "linked, not copied" in caplog.text
    assert images_below(root) == sorted(NAMES + VAL_NAMES)
    for name in images_below(root):
        assert (root / name).readlink() == mounted / "chest_xray" / name
    assert record["linked_to"] == str(mounted) and record["bytes"] > 0
    report = read_json(root / "report.json")
    assert report["warnings"] == [] and len(report["skipped"][COPY]) == 8
    assert fetch(root, archive=mounted) == record
    shutil.rmtree(root)
    assert (mounted / "chest_xray" / NAMES[0]).is_file(), "what the links lead to stays"


def test_links_give_the_data_set_that_copies_give(root, mounted, monkeypatch):
    linked = fetch(root, archive=mounted)
    monkeypatch.undo()
    copied = fetch(root.with_name("copied"), archive=mounted)
    assert "linked_to" not in copied
    assert not any(path.is_symlink() for path in root.with_name("copied").rglob("*"))
    same = ("content_sha256", "counts", "bytes", "source", "split")
    assert [linked[key] for key in same] == [copied[key] for key in same]


def test_what_is_linked_to_is_checked_as_a_copy_is(root, mounted):
    damaged = mounted / "chest_xray" / NAMES[0]
    damaged.write_bytes(damaged.read_bytes()[:-120])
    with pytest.raises(FetchError, match=f"{NAMES[0]}.*truncated|differs from"):
        fetch(root, archive=mounted)
    assert_nothing_left(root)
    (mounted / "chest_xray" / "chest_xray" / NAMES[0]).unlink()
    with pytest.raises(FetchError, match="truncated"):
        fetch(root, archive=mounted)
    assert_nothing_left(root)


def test_a_source_that_is_gone_is_named_with_what_helps(root, mounted):
    fetch(root, archive=mounted)
    moved = mounted.rename(mounted.with_name("elsewhere"))
    for use in (lambda: fetch(root), lambda: build_index(root, 1, 0.3)):
        with pytest.raises((FetchError, DatasetError)) as error:
            use()
        said = str(error.value)
        assert f"links into {mounted}" in said and "attach that folder again" in said
    remedy = re.search(r"\((mv .+?)\)", said)[1]
    subprocess.run(remedy, shell=True, check=True)
    assert fetch(root, archive=moved)["images"] == 8


def test_a_folder_is_linked_to_if_it_may_not_be_written_to(tmp_path):
    assert not is_kept(tmp_path)
    if os.geteuid() == 0:
        pytest.skip("root may write to any folder that is no read-only mount")
    tmp_path.chmod(0o555)
    assert is_kept(tmp_path)


def test_an_entry_that_needs_a_password_is_refused(root, archive):
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(FetchError, match="needs a password; unpack it by hand"):
        fetch(root, archive=archive)


def test_unreadable_zips_are_refused(root, tmp_path, archive):
    whole = archive.read_bytes()
    for number, content in enumerate((b"", b"<html>Sign in</html>", whole[: len(whole) // 2])):
        broken = tmp_path / f"{number}.zip"
        broken.write_bytes(content)
        with pytest.raises(FetchError, match=rf"{number}\.zip is not a readable zip.*again"):
            fetch(root, archive=broken)
    with pytest.raises(FetchError, match="there is no archive"):
        fetch(root, archive=tmp_path / "missing.zip")
    assert not root.exists()


def test_a_damaged_entry_is_refused(root, tmp_path):
    path = write_zip(tmp_path / "a.zip", small_files())
    content = bytearray(path.read_bytes())
    start = content.index(NAMES[2].encode()) + 200
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(FetchError, match=rf"{NAMES[2]} cannot be unpacked .* download the archive"):
        fetch(root, archive=path)
    assert_nothing_left(root)


# Whole or not at all


def test_a_complete_data_set_is_left_alone(root, archive, tmp_path):
    record = fetch(root, archive=archive)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert fetch(root) == fetch(root, archive=archive) == fetch(root, "kaggle") == record
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    other = write_zip(tmp_path / "other.zip", small_files() | {"readme": b""})
    with pytest.raises(FetchError, match=r"comes from another archive, xray\.zip\. Move it away"):
        fetch(root, archive=other)
    with pytest.raises(FetchError, match="holds the data set of source 'archive'. Move it away"):
        fetch(root, "medmnist")
    write_json(root / "source.json", record | {"source": "one of your own"})
    with pytest.raises(FetchError, match="holds the data set of source 'one of your own'"):
        fetch(root, "kaggle")


@pytest.mark.parametrize("damage", ["remove", "truncate", "record"])
def test_a_data_set_that_has_changed_is_not_called_complete(root, archive, damage):
    fetch(root, archive=archive)
    if damage == "remove":
        (root / NAMES[0]).unlink()
    elif damage == "truncate":
        os.truncate(root / NAMES[0], 10)
    else:
        (root / "source.json").write_text("{")
    with pytest.raises(FetchError, match="(has changed since|not what `make data` writes).*Move"):
        fetch(root, archive=archive)


def test_a_folder_that_make_data_did_not_write_is_not_touched(root, tmp_path):
    write_files(root, small_files(base=""))
    with pytest.raises(FetchError, match=r"in the way: it holds no source\.json.*mv .*ARCHIVE="):
        fetch(root)
    assert not data_set_present(root) and images_below(root) == sorted(NAMES)
    moved = root.rename(tmp_path / "chest_xray-unpacked")
    fetch(root, archive=moved)
    assert data_set_present(root) and images_below(root) == sorted(NAMES)


def test_a_full_disk_is_said_before_and_while_unpacking(root, archive, monkeypatch):
    usage = shutil.disk_usage(archive.parent)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(FetchError, match=r"needs 0\.00 GB.*free space, or set DATA_DIR"):
        fetch(root, archive=archive)
    assert_nothing_left(root)
    monkeypatch.undo()

    def fail(*_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module_of_archive, "_copy", fail)
    with pytest.raises(FetchError, match=r"the disk of .* is full .* free space and run again"):
        fetch(root, archive=archive)
    assert_nothing_left(root)


def test_two_runs_do_not_meet(root, archive):
    root.parent.mkdir()
    with module._lock(root), pytest.raises(FetchError, match="another `make data` is filling"):
        fetch(root, archive=archive)


INTERRUPTED_RUN = """
import os, sys, time
from utils.data import archive, checks, download

original, calls = getattr({owner}, {name!r}), 0

def hang(*arguments):
    global calls
    calls += 1
    if calls > {allowed}:
        os.write(1, b"ready")  # In one piece, whatever thread this is.
        time.sleep(600)
    return original(*arguments)

setattr({owner}, {name!r}, hang)
download.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "allowed"),
    [
        ("archive", "_copy", 3),
        ("checks", "_check_image", 0),
        ("os", "rename", 0),
    ],
)
def test_a_killed_run_is_not_taken_for_whole(root, archive, caplog, owner, name, allowed):
    script = INTERRUPTED_RUN.format(owner=owner, name=name, allowed=allowed)
    command = [sys.executable, "-c", script, "--archive", archive, "--root", root]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.read(5) == "ready"
        finally:
            process.kill()
    scratch = root.with_name(".chest_xray.unfinished")
    assert any(scratch.iterdir()) and not root.exists() and not data_set_present(root)
    fetch(root, archive=archive)
    assert "which an interrupted run left behind" in caplog.text
    assert images_below(root) == sorted(NAMES) and not scratch.exists()


def test_the_command_line_says_what_is_wrong_in_one_line(root, archive, capsys, caplog):
    assert main(["--archive", str(archive), "--root", str(root)]) == 0
    assert "6 images, every one decoded" in caplog.text
    caplog.clear()
    assert main(["--root", str(root)]) == 0
    assert "already holds a complete data set" in caplog.text
    caplog.clear()
    assert main(["--archive", "missing.zip", "--root", str(root)]) == 1
    assert caplog.messages[-1].startswith("make data: there is no archive")
    assert "\n" not in caplog.messages[-1] and capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        main(["--source", "elsewhere"])
    with pytest.raises(FetchError, match="unknown source 'elsewhere'; choose one of kaggle"):
        fetch(root, "elsewhere")


# Archives as people have them


def test_mendeleys_own_names_give_patients(root, tmp_path):
    names = [
        f"{split}/{folder}/{kind}-{number}{digit}-000{image}.jpeg"
        for digit, split in enumerate(("train", "test"))
        for folder, kind, number in (
            ("NORMAL", "NORMAL", 100), ("PNEUMONIA", "BACTERIA", 200), ("PNEUMONIA", "VIRUS", 300),
        )
        for image in (1, 2)
    ]  # fmt: skip
    files = hard_inputs.archive_files(f"CellData/chest_xray/{name}" for name in names)
    fetch(root, archive=write_zip(tmp_path / "ZhangLabData.zip", files))
    assert images_below(root) == sorted(names)
    test = parse_name("BACTERIA-1234567-0001.jpeg")
    assert (test.patient_id, test.patient_number, test.etiology) == (
        "MENDELEY-1234567-bacteria", "MENDELEY-1234567", "bacteria",
    )  # fmt: skip
    for kind in ("NORMAL", "VIRUS"):
        assert parse_name(f"{kind}-1234567-0002.jpeg").patient_number == test.patient_number, (
            "a child whose number carries two classes goes one way"
        )


def test_mendeleys_own_names_are_split_by_patient(root, tmp_path):
    names = [
        f"{split}/{folder}/{kind}-10{number:02}{len(split)}-000{image}.jpeg"
        for split in ("train", "test")
        for folder, kind in (("NORMAL", "NORMAL"), ("PNEUMONIA", "BACTERIA"))
        for number in range(20)
        for image in (1, 2)
    ]
    files = hard_inputs.archive_files(f"chest_xray/{name}" for name in names)
    fetch(root, archive=write_zip(tmp_path / "ChestXRay2017.zip", files))
    index = build_index(root, seed=1, validation_fraction=0.3)
    assert set(index.etiology) == {"normal", "bacteria"} and "" not in set(index.patient_id)
    splits = index.groupby(index.patient_id.map(patient_number)).split.nunique()
    assert len(splits) == 40 and set(splits) == {1}
    assert index.groupby("patient_id").size().eq(2).all()


def test_second_downloads_are_read_under_their_own_name(root, tmp_path):
    files = small_files()
    files["chest_xray/train/NORMAL/IM-0009-0001 (1).jpeg"] = image_bytes(90)
    copy = "chest_xray/train/NORMAL/IM-0001-0001 (1).jpeg"
    files[copy] = files["chest_xray/train/NORMAL/IM-0001-0001.jpeg"]
    fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    assert images_below(root) == sorted((*NAMES, "train/NORMAL/IM-0009-0001.jpeg"))
    report = read_json(root / "report.json")
    assert len(report["skipped"][COPY]) == 1
    assert any("IM-0009-0001 (1).jpeg" in warning for warning in report["warnings"])
    files[copy] = image_bytes(91)
    with pytest.raises(FetchError, match="which has the same name"):
        fetch(root.with_name("other"), archive=write_zip(tmp_path / "b.zip", files))


def test_folders_within_a_class_are_read(root, tmp_path):
    files = {
        name.replace("PNEUMONIA/", "PNEUMONIA/BACTERIA/series 1/"): content
        for name, content in small_files().items()
    }
    fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    assert images_below(root) == sorted(NAMES)


def test_what_downloading_again_cannot_mend_is_said_to_be_so(root, tmp_path):
    whole = hard_inputs.zip_of(small_files())
    inner = hard_inputs.zip_of({"data/chest_xray.zip": whole, "readme.txt": b"x"})
    for name, content, reason in (
        ("deflate64.zip", hard_inputs.say_deflate64(whole), "Deflate64.*unpack it by hand"),
        ("nested.zip", inner, r"another zip, data/chest_xray\.zip; unpack it once, and pass that"),
        ("a.tar.gz", b"\x1f\x8b\x08" + bytes(20), "a gzip archive; unpack it by hand.*tar -xf"),
        ("a.rar", b"Rar!\x1a\x07", "a RAR archive; unpack it by hand"),
        ("login.zip", b"<!DOCTYPE html>", "a web page; sign in, and download it again"),
        ("cut.zip", whole[:500], "may have broken off; download it again"),
    ):  # fmt: skip
        archive = hard_inputs.save(tmp_path / name, content)
        with pytest.raises(FetchError, match=reason) as error:
            fetch(root, archive=archive)
        if name in ("deflate64.zip", "nested.zip"):
            assert "download it again" not in str(error.value)
        assert_nothing_left(root)
    unpacked = write_files(tmp_path / "by hand", small_files())
    assert fetch(root, archive=unpacked)["images"] == 6, "the remedy"


def test_a_hundred_names_of_ones_own_are_refused_in_a_few_words(root, tmp_path):
    names = [
        f"{split}/{folder}/{folder.lower()}{number}.jpeg"
        for split in ("train", "test") for folder in CLASS_NAMES for number in range(25)
    ]  # fmt: skip
    archive = write_zip(tmp_path / "own.zip", dict.fromkeys(names, image_bytes(1)))
    with pytest.raises(FetchError, match="100 files refused: .* and 97 more") as error:
        fetch(root, archive=archive)
    said = str(error.value).removeprefix(str(archive))
    assert len(said) < 400 and "\n" not in said and "download it again" not in said
    refused = read_json(root.with_name("chest_xray.refused.json"))["refused"]
    assert len(refused) == 100, "all of them are in the list"


def test_files_that_are_no_images_are_said_to_be_what_they_are(root, tmp_path):
    chest = hard_inputs.draw_chest()
    read = {
        "train/NORMAL/IM-0005-0001.png": hard_inputs.dicom(4095 * chest),
        "train/NORMAL/IM-0006-0001.jpeg": hard_inputs.ENCODINGS["scan.webp"][0](chest),
        "train/NORMAL/IM-0007-0001.tif": hard_inputs.ENCODINGS["scan.TIFF"][0](chest),
    }
    refused = {
        "train/NORMAL/IM-0008-0001.jpeg": (b"%PDF-1.7", "it is a PDF document"),
        "train/NORMAL/IM-0009-0001.png": (
            hard_inputs.dicom(4095 * chest)[:-9], "DICOM file is damaged",
        ),
    }  # fmt: skip
    files = small_files() | {f"chest_xray/{name}": content for name, content in read.items()}
    fetch(root, archive=write_zip(tmp_path / "a.zip", files))
    report = read_json(root / "report.json")
    assert report["modes"]["DICOM"] == 1
    assert report["converted_when_read"] == {
        "DICOM: DICOM without a window: the whole range of its 12 bits taken": [
            "train/NORMAL/IM-0005-0001.png"
        ]
    }
    for name, (content, reason) in refused.items():
        archive = write_zip(tmp_path / "b.zip", small_files() | {f"chest_xray/{name}": content})
        with pytest.raises(FetchError, match=rf"{name} \(.*{reason}"):
            fetch(root.with_name("other"), archive=archive)


# PneumoniaMNIST


@pytest.fixture
def medmnist(tmp_path, monkeypatch):
    """Write a small file in PneumoniaMNIST's format and make its hash the expected one."""
    random = np.random.default_rng(0)
    arrays = {}
    for folder, count in (("train", 5), ("val", 3), ("test", 4)):
        arrays[f"{folder}_images"] = random.integers(0, 256, (count, 16, 16), np.uint8)
        arrays[f"{folder}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    file = tmp_path / "served" / "pneumoniamnist_224.npz"
    file.parent.mkdir()
    np.savez_compressed(file, **arrays)
    for each in (module, module_of_medmnist):
        monkeypatch.setattr(each, "MEDMNIST_MD5", pooch.file_hash(str(file), alg="md5"))
    return file


def test_pneumoniamnist_is_fetched_and_keeps_its_own_split(root, medmnist, monkeypatch):
    with serve(medmnist.parent) as server:
        monkeypatch.setattr(module_of_medmnist, "MEDMNIST_URL", f"{server.url}/{medmnist.name}")
        record = fetch(root, "medmnist")
        assert server.requests == [medmnist.name]
    assert record["source"] == "medmnist" and record["split"] == "image-level split"
    assert record["counts"]["train"] == {"NORMAL": 3, "PNEUMONIA": 2}
    arrays = np.load(medmnist)
    for number, label in enumerate(arrays["val_labels"].ravel()):
        file = root / "val" / CLASS_NAMES[label] / f"medmnist_val_{number:05}.png"
        assert np.array_equal(np.asarray(Image.open(file)), arrays["val_images"][number])
    assert split_level(root) == "image-level split"
    index = build_index(root, seed=1, validation_fraction=0.1)
    assert index.split.value_counts().to_dict() == {"train": 5, "test": 4, "validation": 3}
    assert set(index.patient_id) == {""}
    # The download has served its purpose.
    assert {path.name for path in root.parent.iterdir()} == {"chest_xray", ".chest_xray.lock"}
    with pytest.raises(FetchError, match="holds the data set of source 'medmnist'"):
        fetch(root, "kaggle")


def test_pneumoniamnist_may_be_downloaded_by_hand(root, medmnist):
    assert fetch(root, "medmnist", medmnist)["images"] == 12
    assert medmnist.is_file()
    medmnist.write_bytes(medmnist.read_bytes()[:-10])
    with pytest.raises(FetchError, match="its MD5 is not .*; download .* again"):
        fetch(root.with_name("other"), "medmnist", medmnist)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.SERVER_ERROR, "500 Server Error"),
        (Fault.BREAK_OFF, "IncompleteRead"),
        (Fault.WRONG_CONTENT, r"hash of downloaded file .* does not match"),
    ],
)
def test_failed_downloads_of_pneumoniamnist_leave_nothing(
    root, medmnist, monkeypatch, fault, reason
):
    with serve(medmnist.parent, {medmnist.name: fault}) as server:
        monkeypatch.setattr(module_of_medmnist, "MEDMNIST_URL", f"{server.url}/{medmnist.name}")
        with pytest.raises(FetchError, match=rf"{reason}.*make data SOURCE=medmnist ARCHIVE="):
            fetch(root, "medmnist")
        assert_nothing_left(root)
        server.faults.clear()
        assert fetch(root, "medmnist")["images"] == 12


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    with serve(tmp_path) as server:
        monkeypatch.setattr(module_of_medmnist, "MEDMNIST_URL", f"{server.url}/file.npz")
    with pytest.raises(FetchError, match=r"file\.npz: .*(refused|retries).*run again"):
        download_medmnist(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_labels": None}, "val_labels"),
        ({"train_images": np.zeros((2, 4, 4), np.float32)}, r"float32 \(2, 4, 4\) for 2 labels"),
        ({"train_images": np.zeros((3, 4, 4), np.uint8)}, r"\(3, 4, 4\) for 2 labels"),
        ({"train_labels": np.array([0, 7])}, r"labels must be 0 or 1, not \[7\]"),
    ],
)
def test_arrays_that_are_not_pneumoniamnist_are_refused(tmp_path, change, message):
    arrays = {}
    for folder in ("train", "val", "test"):
        arrays[f"{folder}_images"] = np.zeros((2, 4, 4), np.uint8)
        arrays[f"{folder}_labels"] = np.array([0, 1])
    arrays = {name: array for name, array in (arrays | change).items() if array is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(FetchError, match=message):
        write_medmnist_images(tmp_path / "a.npz", tmp_path / "out")
    (tmp_path / "b.npz").write_bytes(b"<html>Sign in</html>")
    with pytest.raises(FetchError, match=r"b\.npz is not PneumoniaMNIST .*download it again"):
        write_medmnist_images(tmp_path / "b.npz", tmp_path / "out2")


# Kaggle: kagglehub itself, speaking to a local server

GET_DATASET = "v1/datasets.DatasetApiService/GetDataset"
DOWNLOAD_DATASET = "v1/datasets.DatasetApiService/DownloadDataset"


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """Serve a small data set as Kaggle does, to a reader without an account."""
    folder = tmp_path / "kaggle"
    (folder / GET_DATASET).parent.mkdir(parents=True)
    (folder / GET_DATASET).write_text('{"currentVersionNumber": 2}')
    files = small_files(NAMES + VAL_NAMES)
    nested = small_files(NAMES + VAL_NAMES, "chest_xray/chest_xray/")
    write_zip(folder / DOWNLOAD_DATASET, files | nested | {"chest_xray/.DS_Store": b"Bud1"})
    monkeypatch.setattr(module, "KAGGLE_COUNTS", SMALL_COUNTS)
    for variable in ("KAGGLE_API_ENVIRONMENT", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    with serve(folder) as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
        yield server


def test_kaggles_data_set_is_fetched_without_an_account(root, kaggle):
    record = fetch(root)
    assert kaggle.requests == [GET_DATASET, DOWNLOAD_DATASET]
    assert record["source"] == "kaggle" and record["kaggle_version"] == "2"
    assert images_below(root) == sorted(NAMES + VAL_NAMES)
    report = read_json(root / "report.json")
    assert report["warnings"] == [] and len(report["skipped"][COPY]) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "fault", "reason"),
    [
        (GET_DATASET, Fault.SERVER_ERROR, "500 Server Error"),
        (DOWNLOAD_DATASET, Fault.SERVER_ERROR, "500 Server Error"),
        (DOWNLOAD_DATASET, Fault.BREAK_OFF, "IncompleteRead"),
        (DOWNLOAD_DATASET, Fault.WRONG_CONTENT, "actual MD5 checksum"),
    ],
)
def test_failed_downloads_from_kaggle_leave_nothing(root, kaggle, path, fault, reason):
    kaggle.faults[path] = fault
    with pytest.raises(FetchError, match=rf"Kaggle: .*{reason}.*make data ARCHIVE="):
        fetch(root)
    assert_nothing_left(root)
    kaggle.faults.clear()
    assert fetch(root)["images"] == 8


def test_an_incomplete_copy_in_kagglehubs_cache_is_refused(root, kaggle, tmp_path):
    fetch(root)
    cached = tmp_path / "cache" / "datasets" / KAGGLE_HANDLE / "versions" / "2"
    (cached / "chest_xray" / NAMES[0]).unlink()
    (cached / "chest_xray" / "chest_xray" / NAMES[0]).unlink()
    with pytest.raises(FetchError, match=r"should hold train 2 NORMAL .* delete .*/cache/"):
        fetch(root.with_name("other"))


# The real archive, where it lies beside the checkout


def count_patients(index: pd.DataFrame, column: str) -> tuple[dict[str, int], int]:
    """Count patients by split, and those that are in test and elsewhere too."""
    in_test = index.split == "test"
    shared = set(index[column][in_test]) & set(index[column][~in_test])
    return index.groupby("split")[column].nunique().to_dict(), len(shared)


@pytest.mark.slow
@pytest.mark.skipif("XRAY_ARCHIVE" not in os.environ, reason="XRAY_ARCHIVE names no archive")
def test_the_real_archive_is_what_the_datasheet_says(root):
    record = fetch(root, archive=Path(os.environ["XRAY_ARCHIVE"]))
    counts = record["counts"]
    assert counts == {folder: KAGGLE_COUNTS[folder] for folder in counts}
    assert {"train", "test"} <= set(counts)

    study = load_study("full")
    index = build_index(root, study.seed, study.validation_fraction)
    # The datasheet counts without `val`, which scaled copies lack.
    index = index[~index.image_id.str.startswith("val/")]
    index["number"] = index.patient_id.map(patient_number)
    narrow, wide = count_patients(index, "patient_id")[0], count_patients(index, "number")[0]
    official = index.assign(split=index.image_id.str.split("/").str[0])
    (narrow_official, narrow_shared), (wide_official, wide_shared) = (
        count_patients(official, column) for column in ("patient_id", "number")
    )
    largest = official.groupby(["split", "patient_id"]).size().groupby("split").max()
    etiologies = official[official.label == 1].groupby(["split", "number"]).etiology.nunique()
    both = (etiologies > 1).groupby("split").sum()
    groups = official[official.duplicate_group >= 0].groupby("duplicate_group").split
    twins = groups.first().value_counts()
    images, share = index.split.value_counts(), index.groupby("split").label.mean()
    shared_numbers = set(official.number[official.split == "train"])
    test = official[official.split == "test"]
    datasheet = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    datasheet = " ".join(re.sub("<!--.*?-->", "", datasheet).split())
    splits = ("train", "validation", "test")
    for row in (
        f"narrow: family, number and etiology | {narrow_official['train']:,} "
        f"| {narrow_official['test']} | {narrow_shared} |",
        f"wide: family and number | {wide_official['train']:,} "
        f"| {wide_official['test']} | {wide_shared} |",
        f"images of one patient | {largest['train']} | {largest['test']} |",
        f"numbers with both etiologies | {both['train']} | {both['test']} |",
        f"groups of identical images | {twins['train']} | {twins['test']} "
        f"| {(groups.nunique() > 1).sum()} |",
        f"{groups.ngroups} groups, {groups.size().sum()} images with identical pixels",
        f"{test.number.isin(shared_numbers).sum()} of the {len(test)} test images",
        "| images | " + " | ".join(f"{images[split]:,}" for split in splits),
        "| patients, narrow | " + " | ".join(f"{narrow[split]:,}" for split in splits),
        "| patients, wide | " + " | ".join(f"{wide[split]:,}" for split in splits),
        "| share of PNEUMONIA | " + " | ".join(f"{share[split]:.1%}" for split in splits),
    ):
        assert row in datasheet, f"the datasheet should say: {row}"
