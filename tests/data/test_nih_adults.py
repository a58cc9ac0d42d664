"""The external test is fetched file by file, resumed, checked, and kept apart from the study."""

import errno
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.http_server import Fault, LocalServer, serve
from utils.common.constants import CLASS_NAMES, NORMAL, PNEUMONIA
from utils.common.files import file_sha256, read_json
from utils.common.paths import ROOT
from utils.data import download as module_of_download
from utils.data import nih_adults as module
from utils.data.checks import FetchError
from utils.data.download import data_set_present, fetch, main
from utils.data.images import DatasetError, load_images, pixel_sha256, read_image
from utils.data.nih_adults import load_nih_adults_index, open_nih_adults, source_url
from utils.data.sources import NIH_CONTENT_SHA256, NIH_FILES_URL

FOLDERS = {"PNEUMONIA": "X-Ray Set/Pneumonia", "NORMAL": "X-Ray Set/No_findings"}
NUMBERS = {
    "PNEUMONIA": ("00000061_012", "00000061_015", "00000144_001"),
    "NORMAL": ("00000002_000",),
}
FILES = [f"{class_name}/{number}.png" for class_name in NUMBERS for number in NUMBERS[class_name]]
PATHS = [
    f"{FOLDERS[class_name]}/{number}.png"
    for class_name in NUMBERS
    for number in NUMBERS[class_name]
]


def write_png(file: Path, seed: int, size: int = 300, mode: str = "L") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (size, size) if mode == "L" else (size, size, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    if mode == "RGBA":
        pixels[..., 3] = 255  # opaque: what shines through is read as white
    Image.fromarray(pixels).save(file)


@pytest.fixture
def root(tmp_path):
    """Return a root whose parent holds nothing else."""
    return tmp_path / "data" / "nih_adults"


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Write four source files, one of them in color, and make theirs the index."""
    folder = tmp_path / "repository"
    rows = []
    for seed, (file, path) in enumerate(zip(FILES, PATHS, strict=True)):
        write_png(folder / path, seed, mode="RGBA" if seed == 1 else "L")
        label, name = file.split("/")
        rows.append({
            "file": file, "label": label, "patient_id": int(name[:8]), "age": 30 + seed, "sex": "F",
            "view": "AP", "findings": "Pneumonia" if label == "PNEUMONIA" else "No Finding",
            "source_path": path, "source_sha256": file_sha256(folder / path),
            "source_bytes": (folder / path).stat().st_size,
        })  # fmt: skip
    index_file = tmp_path / "index.csv"
    pd.DataFrame(rows).to_csv(index_file, index=False)
    for each in (module, module_of_download):
        monkeypatch.setattr(each, "INDEX_FILE", index_file)
    return folder


@pytest.fixture
def server(sources, monkeypatch):
    with serve(sources) as server:
        monkeypatch.setattr(module, "NIH_FILES_URL", server.url)
        yield server


@pytest.fixture
def archive(sources, tmp_path):
    """Return a folder of the four images at 224 pixels, and what else may lie there."""
    folder = tmp_path / "copy"
    for seed, file in enumerate(FILES):
        write_png(folder / file, seed, 224)
    (folder / "index.csv").write_text("anything")
    return folder


def images_below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.glob("*/*"))


def downloads_of(root: Path) -> list[str]:
    return images_below(root.with_name(".nih_adults.downloads"))


def take_requests(server: LocalServer) -> list[str]:
    asked = list(server.requests)
    server.requests.clear()
    return asked


# Download


def test_images_are_fetched_one_by_one_and_scaled(root, server, sources):
    record = fetch(root, "nih_adults")
    assert server.requests == PATHS
    assert images_below(root) == sorted(FILES)
    for file, path in zip(FILES, PATHS, strict=True):
        gray = Image.open(sources / path).convert("L")
        expected = gray.resize((224, 224), Image.Resampling.BILINEAR)
        assert np.array_equal(read_image(root / file), np.asarray(expected))
    assert record == read_json(root / "source.json")
    assert record["source"] == "nih_adults" and record["split"] == "external"
    assert record["images"] == 4
    assert record["counts"] == {"external": {"NORMAL": 1, "PNEUMONIA": 3}}
    assert record["archive"] is None
    assert record["commit"] in record["address"] and record["commit"] in NIH_FILES_URL
    assert record["index_sha256"] == file_sha256(module.INDEX_FILE)
    assert "Wang" in record["licence"]
    assert read_json(root / "report.json")["entries"] == 4
    # Neither the large files nor anything of the study's own data set.
    assert {path.name for path in root.parent.iterdir()} == {"nih_adults", ".nih_adults.lock"}


def test_what_is_there_is_not_fetched_again(root, server):
    record = fetch(root, "nih_adults")
    take_requests(server)
    assert fetch(root, "nih_adults") == record
    assert server.requests == []
    (root / FILES[0]).unlink()
    with pytest.raises(FetchError, match=r"has changed since .*external 1 NORMAL \+ 2 PNEU.*Move"):
        fetch(root, "nih_adults")
    assert server.requests == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.SERVER_ERROR, "500 Server Error"),
        (Fault.BREAK_OFF, "IncompleteRead"),
        (Fault.WRONG_CONTENT, "SHA256 hash of downloaded file .* does not match"),
        (Fault.WRONG_SIZE, r"[\d,]+ bytes came instead of [\d,]+"),
        (None, "404 Client Error"),
    ],
)
def test_a_failed_download_names_the_file_and_is_resumed(root, server, sources, fault, reason):
    aside = sources / "aside.png"
    if fault is None:
        (sources / PATHS[2]).rename(aside)
    else:
        server.faults[PATHS[2]] = fault
    expected = rf"Pneumonia/00000144_001\.png: .*{reason}.*run again.*SOURCE=nih_adults ARCHIVE="
    with pytest.raises(FetchError, match=expected):
        fetch(root, "nih_adults")
    assert take_requests(server) == PATHS[:3]
    assert not root.exists() and not root.with_name(".nih_adults.unfinished").exists()
    assert downloads_of(root) == sorted(FILES[:2])
    if fault is None:
        aside.rename(sources / PATHS[2])
    server.faults.clear()
    assert fetch(root, "nih_adults")["images"] == 4
    assert server.requests == PATHS[2:]


def test_an_interrupted_download_is_resumed(root, server, monkeypatch, caplog):
    original = module.download_file

    def interrupt(url: str, *others: object) -> None:
        if url.endswith("00000144_001.png"):
            raise KeyboardInterrupt
        original(url, *others)

    monkeypatch.setattr(module, "download_file", interrupt)
    command = ["--source", "nih_adults", "--root", str(root)]
    assert main(command) == 130
    assert "interrupted; nothing was put in place, run it again" in caplog.text
    assert take_requests(server) == PATHS[:2] and not root.exists()
    monkeypatch.setattr(module, "download_file", original)
    # A killed run leaves half a file under a name of its own.
    (root.with_name(".nih_adults.downloads") / "PNEUMONIA" / "tmpz1x2").write_bytes(b"half")
    # And what was damaged since is not there and right.
    damaged = root.with_name(".nih_adults.downloads") / FILES[0]
    os.truncate(damaged, damaged.stat().st_size // 2)
    assert main(command) == 0
    assert server.requests == [PATHS[0], *PATHS[2:]]
    assert images_below(root) == sorted(FILES)
    assert {path.name for path in root.parent.iterdir()} == {"nih_adults", ".nih_adults.lock"}


def test_a_server_that_is_not_there_is_named(root, sources, monkeypatch):
    with serve(sources) as server:
        monkeypatch.setattr(module, "NIH_FILES_URL", server.url)
    with pytest.raises(FetchError, match=r"012\.png: .*(refused|retries).*run again.*ARCHIVE="):
        fetch(root, "nih_adults")
    assert not root.exists()


def test_a_full_disk_is_said_before_anything_is_downloaded(root, server, monkeypatch):
    usage = shutil.disk_usage(root.parents[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(FetchError, match=r"needs 0\.00 GB.*free space, or set DATA_DIR"):
        fetch(root, "nih_adults")
    assert server.requests == [] and not root.exists()
    monkeypatch.undo()


def test_a_disk_that_fills_up_is_named(root, sources, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "download_file", fail)
    with pytest.raises(FetchError, match=r"the disk of .* is full .* free space and run again"):
        fetch(root, "nih_adults")
    assert not root.exists()


def test_files_come_from_the_address_of_the_pinned_commit():
    first = module._read_index().source_path[0]
    assert source_url(first) == (
        "https://raw.githubusercontent.com/muhammedtalo/COVID-19/"
        "ee3e2cffc0824711bed675275506b26f19be7198/"
        "X-Ray%20Image%20DataSet/Pneumonia/00000061_012.png"
    )
    assert urlsplit(source_url("a b#c?d.png")).path.endswith("/a%20b%23c%3Fd.png")


# A folder of images


def test_a_folder_of_the_images_is_taken_without_a_network(root, archive, server):
    record = fetch(root, "nih_adults", archive)
    assert record["source"] == "nih_adults" and record["archive"] == "copy"
    assert images_below(root) == sorted(FILES) and server.requests == []
    assert all((root / file).read_bytes() == (archive / file).read_bytes() for file in FILES)


def write_truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (Path.unlink, "is missing"),
        (write_truncated, "truncated"),
        (lambda file: file.write_text("<html>"), "it is a web page"),
        (lambda file: write_png(file, 0, 300), "is 300 x 300, not gray of 224 x 224 pixels"),
        (lambda file: write_png(file, 0, 224, "RGB"), "is 224 x 224 x 3, not gray of 224 x 224"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(root, archive, damage, reason):
    damage(archive / FILES[1])
    with pytest.raises(
        FetchError, match=rf"copy: 1 files refused: {FILES[1]} \(.*{reason}.*\)\. copy .*or"
    ):
        fetch(root, "nih_adults", archive)
    assert not root.exists()
    assert list(read_json(root.with_name("nih_adults.refused.json"))["refused"]) == [FILES[1]]


def test_other_archives_are_refused(root, archive, tmp_path):
    packed = shutil.make_archive(str(tmp_path / "copy"), "zip", archive)
    with pytest.raises(FetchError, match=r"copy\.zip is no folder; unpack it .*ARCHIVE=<folder>"):
        fetch(root, "nih_adults", Path(packed))
    with pytest.raises(FetchError, match="there is no archive .*missing"):
        fetch(root, "nih_adults", tmp_path / "missing")
    with pytest.raises(FetchError, match=r"4\.png \(is missing|is missing"):
        fetch(root, "nih_adults", tmp_path)
    assert not root.exists()


def test_other_pixels_are_warned_of(root, archive, monkeypatch):
    record = fetch(root, "nih_adults", archive)
    assert "the pixels are not those" in read_json(root / "report.json")["warnings"][0]
    monkeypatch.setattr(module_of_download, "NIH_CONTENT_SHA256", record["content_sha256"])
    # Another packing of the same pixels is the same.
    for file in FILES:
        Image.open(archive / file).save(archive / file, compress_level=1)
    other = root.with_name("other")
    fetch(other, "nih_adults", archive)
    assert (other / FILES[0]).read_bytes() != (root / FILES[0]).read_bytes()
    assert read_json(other / "report.json")["warnings"] == []


# Apart from the study's own data set


def test_the_adults_have_a_folder_of_their_own(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(DatasetError, match="no data set at .*run `make data SOURCE=nih_adults`"):
        open_nih_adults()
    assert main(["--source", "nih_adults", "--archive", str(archive)]) == 0
    assert not data_set_present(tmp_path / "data" / "chest_xray")
    root, index = open_nih_adults()
    assert root == tmp_path / "data" / "nih_adults"
    assert load_images(root, index.image_id).shape == (4, 224, 224, 3)


def test_adults_are_not_taken_for_the_data_set_of_the_study(root, archive):
    with pytest.raises(FetchError, match="no images in train/NORMAL"):
        fetch(root.with_name("chest_xray"), archive=archive)
    fetch(root, "nih_adults", archive)
    for source in ("kaggle", "medmnist"):
        with pytest.raises(FetchError, match="holds the data set of source 'nih_adults'. Move"):
            fetch(root, source)


# The committed index


def test_the_index_is_that_of_the_datasheet():
    index = load_nih_adults_index()
    assert list(index) == ["image_id", "patient_id", "split", "label", "age", "sex", "findings"]
    assert len(index) == 295 and index.image_id.is_unique and index.image_id.is_monotonic_increasing
    assert set(index.split) == {"external"} and set(index.sex) == {"F", "M"}
    normal, pneumonia = (index[index.label == label] for label in (NORMAL, PNEUMONIA))
    assert (len(normal), normal.patient_id.nunique()) == (181, 100)
    assert (len(pneumonia), pneumonia.patient_id.nunique()) == (114, 78)
    assert set(normal.patient_id).isdisjoint(pneumonia.patient_id)
    assert set(normal.findings) == {"No Finding"}
    assert pneumonia.findings.str.split("|").map(lambda findings: "Pneumonia" in findings).all()
    for class_name, rows in zip(CLASS_NAMES, (normal, pneumonia), strict=True):
        assert rows.image_id.str.fullmatch(rf"{class_name}/\d{{8}}_\d{{3}}\.png").all()
    numbers = index.image_id.str.extract(r"/(\d+)_")[0].astype(int)
    assert (index.patient_id == "NIH-" + numbers.astype(str)).all()
    assert index.age.between(18, 120).all()
    assert set(module._read_index().view) == {"AP"}


def test_the_datasheet_counts_as_the_index_does():
    index = load_nih_adults_index()
    normal, pneumonia = (index[index.label == label] for label in (NORMAL, PNEUMONIA))
    datasheet = " ".join((ROOT / "data" / "nih_adults.md").read_text(encoding="utf-8").split())
    for name, describe in {
        "images": len,
        "patients": lambda rows: rows.patient_id.nunique(),
        "most images of one patient": lambda rows: rows.patient_id.value_counts().max(),
        "women among the patients": lambda rows: sum(rows.drop_duplicates("patient_id").sex == "F"),
        "age at the image, median (range)": lambda rows: (
            f"{rows.age.median():g} ({rows.age.min()}-{rows.age.max()})"
        ),
    }.items():
        row = f"| {name} | {describe(normal)} | {describe(pneumonia)} |"
        assert row in datasheet, f"the datasheet should say: {row}"
    assert f"{(pneumonia.findings == 'Pneumonia').sum()} of the 114 have no other" in datasheet
    for finding in ("Infiltration", "Edema"):
        count = pneumonia.findings.str.contains(finding).sum()
        assert f"{count} also have {finding}" in datasheet


@pytest.mark.slow
@pytest.mark.skipif(
    "NIH_ADULTS_ARCHIVE" not in os.environ, reason="NIH_ADULTS_ARCHIVE names no folder"
)
def test_the_real_images_are_those_of_the_index(root):
    record = fetch(root, "nih_adults", Path(os.environ["NIH_ADULTS_ARCHIVE"]))
    assert record["counts"] == {"external": {"NORMAL": 181, "PNEUMONIA": 114}}
    assert record["content_sha256"] == NIH_CONTENT_SHA256
    assert read_json(root / "report.json")["warnings"] == []
    index = load_nih_adults_index()
    hashes = pd.Series([pixel_sha256(read_image(root / name)) for name in index.image_id])
    twins = index.image_id[hashes.duplicated(keep=False)]
    assert list(twins) == ["NORMAL/00002658_001.png", "NORMAL/00002658_002.png"]
