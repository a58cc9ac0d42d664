"""Study files are complete, and mistakes in them are named."""

import pytest
import yaml

from utils.common.paths import ROOT
from utils.common.study import StudyError, load_study, read_study


def test_the_two_studies_are_usable():
    assert load_study("full").views == 4
    assert load_study("full").epochs == 20
    assert not load_study("full").allow_random_weights
    assert load_study("sample").views == 3
    assert load_study("sample").dataset_name == "phantoms"


def test_unknown_study_lists_the_known_ones():
    with pytest.raises(StudyError, match="choose one of full, sample"):
        load_study("ful")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epoch": 3}, "epoch"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": "many"}, "epochs"),
        ({"validation_fraction": 1.5}, "validation_fraction"),
        ({"dataset_name": "mnist"}, "dataset_name"),
        ({"seed": None}, "seed"),
        ({"study": "other"}, "other"),
    ],
)
def test_a_mistake_is_named(tmp_path, change, named):
    content = yaml.safe_load((ROOT / "studies" / "sample.yaml").read_text()) | change
    file = tmp_path / "sample.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(StudyError, match=named):
        read_study(file)


def test_a_missing_key_is_named(tmp_path):
    content = yaml.safe_load((ROOT / "studies" / "sample.yaml").read_text())
    del content["views"]
    (tmp_path / "sample.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(StudyError, match="views"):
        read_study(tmp_path / "sample.yaml")
