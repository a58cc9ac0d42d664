"""Names give patients, patients give splits, and every file is read or refused."""

import io
import os
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.builders import write_dataset, write_image
from utils.common.files import write_json
from utils.data.images import DatasetError, load_image, load_images, read_image
from utils.data.index import (
    INDEX_COLUMNS,
    assign_split,
    build_index,
    count_crossings,
    dataset_fingerprint,
    open_dataset,
    parse_name,
    patient_number,
    split_level,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "chest_xray")


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person12_bacteria_34.jpeg", "person-12-bacteria"),
        ("person1_virus_6_2.jpeg", "person-1-virus"),
        ("PERSON3_VIRUS_15.JPEG", "person-3-virus"),
        ("IM-0115-0001.jpeg", "IM-115-normal"),
        ("IM-0128-0001-0002.png", "IM-128-normal"),
        ("NORMAL2-IM-0383-0001.jpeg", "NORMAL2-IM-383-normal"),
        ("NORMAL2-IM-1427-0001-0001.JPG", "NORMAL2-IM-1427-normal"),
    ],
)
def test_names_give_patients(name, patient):
    assert parse_name(name).patient_id == patient
    assert patient_number(patient) == parse_name(name).patient_number


@pytest.mark.parametrize(
    "name", ["person_bacteria_1.jpeg", "IM-0115.jpeg", "scan.png", "person1_fungus_2.jpeg"]
)
def test_unknown_names_are_refused(name):
    with pytest.raises(DatasetError, match=f"{name.split('.')[0]}.*restore the original name"):
        parse_name(name)


def test_normal_series_count_for_themselves():
    first, second = parse_name("IM-0007-0001.jpeg"), parse_name("NORMAL2-IM-0007-0001.jpeg")
    assert first.patient_number != second.patient_number


def test_the_split_is_a_pure_function_of_patient_and_seed():
    names = [parse_name(f"person{number}_virus_1.jpeg") for number in range(4000)]
    splits = [assign_split(name, 42, 0.15) for name in names]
    assert splits == [assign_split(name, 42, 0.15) for name in names]
    assert splits != [assign_split(name, 43, 0.15) for name in names]
    assert 0.13 < splits.count("validation") / len(splits) < 0.17
    # Frozen on purpose: another copy of the data, or another machine, must agree for ever.
    validation = [name.number for name, s in zip(names, splits, strict=True) if s == "validation"]
    assert validation[:5] == [14, 17, 21, 24, 27]


def test_both_etiologies_of_a_number_go_the_same_way():
    for number in range(200):
        bacteria, virus = (parse_name(f"person{number}_{e}_1.jpeg") for e in ("bacteria", "virus"))
        assert assign_split(bacteria, 1, 0.3) == assign_split(virus, 1, 0.3)


def test_index_of_a_small_dataset(root):
    index = build_index(root, seed=1, validation_fraction=0.3)
    assert tuple(index.columns) == INDEX_COLUMNS
    assert len(index) == 160 and index.image_id.is_monotonic_increasing
    assert set(index.split[index.image_id.str.startswith("test/")]) == {"test"}
    assert (index.label == (index.etiology != "normal")).all()
    assert (index.width == 16).all() and (index.duplicate_group == -1).all()
    wide = index[index.split != "test"].assign(number=lambda t: t.patient_id.map(patient_number))
    assert (wide.groupby("number").split.nunique() == 1).all()


def test_crossings_are_counted_under_either_reading(root):
    index = build_index(root, 1, 0.3)
    assert set(count_crossings(index).values()) == {0}
    train = index.index[index.split == "train"]
    positive = index.patient_id[train].str.startswith("person")
    bacteria = train[positive & index.patient_id[train].str.endswith("bacteria")][0]
    moved = index.copy()
    moved.loc[bacteria, "split"] = "validation"
    assert list(count_crossings(moved).values()) == [0, 1, 0], "its virus stays behind"
    twins = index.copy()
    held_out = index.index[index.split == "validation"][0]
    twins.loc[[bacteria, held_out], "duplicate_group"] = 0
    assert list(count_crossings(twins).values()) == [0, 0, 1]


def test_the_index_does_not_depend_on_image_size(root, tmp_path):
    other = write_dataset(tmp_path / "other", size=24)
    columns = ["image_id", "split", "label", "etiology", "patient_id"]
    first, second = (build_index(r, 1, 0.3)[columns] for r in (root, other))
    assert first.equals(second)


def test_val_is_pooled_with_train(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    write_image(copy / "val/NORMAL/NORMAL2-IM-0002-0001.jpeg", 901)
    write_image(copy / "val/PNEUMONIA/person2_bacteria_99.jpeg", 902)
    index = build_index(copy, 1, 0.3).set_index("image_id")
    sibling = index.loc["train/PNEUMONIA/person2_bacteria_2.jpeg"]
    assert index.loc["val/PNEUMONIA/person2_bacteria_99.jpeg"].split == sibling.split


def test_duplicates_are_grouped_by_pixels(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    original = copy / "train/PNEUMONIA/person1_bacteria_1.jpeg"
    Image.open(original).save(copy / "train/PNEUMONIA/person1_bacteria_77.png")
    index = build_index(copy, 1, 0.3)
    twins = index[index.duplicate_group >= 0]
    assert sorted(twins.image_id) == [
        "train/PNEUMONIA/person1_bacteria_1.jpeg", "train/PNEUMONIA/person1_bacteria_77.png"
    ]  # fmt: skip
    assert twins.duplicate_group.nunique() == 1


def test_the_scan_is_reused_until_a_file_changes(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    before = build_index(copy, 1, 0.3)
    changed = copy / "train/NORMAL/IM-0001-0001.jpeg"
    write_image(changed, 999)
    os.utime(changed, ns=(1, 1))
    after = build_index(copy, 1, 0.3)
    differs = before.pixel_sha256 != after.pixel_sha256
    assert list(before.image_id[differs]) == ["train/NORMAL/IM-0001-0001.jpeg"]
    assert dataset_fingerprint(before) != dataset_fingerprint(after)


def test_dataset_without_patient_names_keeps_its_own_split(tmp_path):
    for split in ("train", "val", "test"):
        for label, name in enumerate(("NORMAL", "PNEUMONIA")):
            write_image(tmp_path / split / name / f"medmnist_{split}_{label:05}.png", label)
    write_json(tmp_path / "source.json", {"source": "medmnist"})
    index = build_index(tmp_path, 1, 0.3)
    assert split_level(tmp_path) == "image-level split"
    assert set(index.split) == {"train", "validation", "test"}
    assert (index.patient_id == "").all()


def test_wrong_folders_and_missing_classes_are_named(root, tmp_path):
    with pytest.raises(DatasetError, match="run `make data`"):
        build_index(tmp_path / "nothing", 1, 0.3)
    copy = shutil.copytree(root, tmp_path / "copy")
    write_image(copy / "train/NORMAL/person1_virus_8.jpeg", 1)
    with pytest.raises(DatasetError, match="train/NORMAL/person1_virus_8.jpeg lies in the folder"):
        build_index(copy, 1, 0.3)
    shutil.rmtree(copy / "train/NORMAL")
    with pytest.raises(DatasetError, match="both classes are needed"):
        build_index(copy, 1, 0.3)
    write_image(copy / "train/COVID/person1_virus_8.jpeg", 1)
    with pytest.raises(DatasetError, match="COVID"):
        build_index(copy, 1, 0.3)


def test_class_folders_that_are_links_are_followed(root, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for name in ("NORMAL", "PNEUMONIA"):
            (tmp_path / split / name).symlink_to(root / split / name)
    columns = ["image_id", "split", "pixel_sha256"]
    linked, own = (build_index(each, 1, 0.3)[columns] for each in (tmp_path, root))
    assert linked.equals(own)
    (tmp_path / "train" / "gone").symlink_to("nowhere")
    with pytest.raises(DatasetError, match="gone cannot be read .*remove it"):
        build_index(tmp_path, 1, 0.3)


def test_open_dataset_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(DatasetError, match="make data"):
        open_dataset("chest_xray")


def test_the_phantoms_of_the_sample_come_from_two_sites(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        "utils.data.index.write_phantom_dataset", lambda *given, **how: (given, how)
    )
    assert open_dataset("phantoms") == ((tmp_path / "phantoms",), {"sites": True})


def test_images_of_every_kind_become_rgb(tmp_path):
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(np.dstack([gray] * 3 + [gray * 0 + 255])).save(tmp_path / "rgba.png")
    for name in ("gray.png", "sixteen.png", "rgba.png"):
        image = load_image(tmp_path / name, 16)
        assert image.shape == (16, 16, 3) and image.dtype == np.uint8
        np.testing.assert_array_equal(image[..., 1], gray)
    assert load_image(tmp_path / "gray.png", 8).shape == (8, 8, 3)
    assert load_images(tmp_path, ["gray.png", "rgba.png"], 16).shape == (2, 16, 16, 3)


def test_truncated_images_are_refused(tmp_path):
    write_image(tmp_path / "whole.jpeg", 1, 64)
    (tmp_path / "half.jpeg").write_bytes((tmp_path / "whole.jpeg").read_bytes()[:600])
    (tmp_path / "text.jpeg").write_text("no image")
    header = b"\x89PNG\r\n\x1a\n" + (5).to_bytes(4) + b"IHDR" + bytes(5)
    (tmp_path / "header.png").write_bytes(header + zlib.crc32(header[12:]).to_bytes(4))
    for name, remedy in {
        "half.jpeg": "fetch it again", "header.png": "fetch it again", "text.jpeg": "as PNG",
    }.items():  # fmt: skip
        with pytest.raises(DatasetError, match=f"{name} cannot be read.*{remedy}"):
            read_image(tmp_path / name)


def test_other_formats_are_refused_whatever_their_name(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "inside.png", format="PPM")
    with pytest.raises(DatasetError, match="inside.png cannot be read"):
        read_image(tmp_path / "inside.png")


def test_a_stream_is_read_as_its_file_is(tmp_path):
    write_image(tmp_path / "whole.jpeg", 1, 64)
    stream = io.BytesIO((tmp_path / "whole.jpeg").read_bytes())
    np.testing.assert_array_equal(load_image(stream), load_image(tmp_path / "whole.jpeg"))


@pytest.mark.parametrize("fraction", [0, 1, -0.1])
def test_the_validation_fraction_is_checked(root, fraction):
    with pytest.raises(ValueError, match="validation_fraction"):
        build_index(root, 1, fraction)
