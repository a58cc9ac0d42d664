"""`predict` and `demo` score with the shipped model where requirements-score.txt alone is there."""

import io
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import numpy as np
import pandas as pd
import pytest
import requests

from demo.picture import read_address
from tests import hard_inputs
from utils.common.paths import ROOT
from utils.models.registry import PHANTOMS, REFERENCE_PREDICTIONS

pytestmark = pytest.mark.slow

SCORE = ROOT / "requirements-score.txt"
SECONDS = 120
RUN = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not in requirements-score.txt", name=name)

ABSENT = frozenset(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())
sys.argv[:2] = []
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module with its arguments, but finds nothing of what `sys.argv[1]` names."""


def read_names() -> set[str]:
    """Return the packages that the file asks for."""
    lines = [line.strip() for line in SCORE.read_text().splitlines()]
    return {line for line in lines if line and not line.startswith(("#", "-c "))}


def list_absent() -> set[str]:
    """Return the installed modules that an environment of the file does not have."""
    there, waiting = set(), read_names()
    while waiting:
        name = waiting.pop()
        there.add(normalize(name))
        try:
            needed = [each for each in requires(name) or [] if "extra ==" not in each]
        except PackageNotFoundError:  # of another system or version of Python
            continue
        waiting |= {
            each for each in (re.match(r"[\w.-]+", need)[0] for need in needed)
            if normalize(each) not in there
        }  # fmt: skip
    modules = packages_distributions()
    return {
        module for module, packages in modules.items()
        if module.isidentifier() and not there & {normalize(package) for package in packages}
    }  # fmt: skip


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def start(absent: set[str], module: str, *arguments: str, results: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, ",".join(sorted(absent)), module, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"RESULTS_DIR": results},
    )  # fmt: skip


@pytest.fixture(scope="module")
def absent():
    # The repository itself, and what starts Python.
    modules = list_absent() - {"utils", "exercises", "demo", "pip", "setuptools", "pkg_resources"}
    assert {"tensorflow", "keras", "tf_keras_vis", "h5py", "matplotlib", "onnx"} <= modules
    assert not {"onnxruntime", "numpy", "pandas", "PIL", "pydicom", "flask"} & modules
    return modules


def test_versions_are_those_of_the_one_list():
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    assert read_names() <= pinned
    assert "-c requirements.txt" in SCORE.read_text().splitlines()


def test_what_is_absent_cannot_be_imported(absent, tmp_path):
    done = start(absent, "keras", results=str(tmp_path))
    said, _ = done.communicate(timeout=SECONDS)
    assert done.returncode == 1 and "keras is not in requirements-score.txt" in said


@pytest.mark.parametrize("evaluate", [False, True])
def test_predict_scores_the_phantoms(absent, evaluate, tmp_path):
    out = tmp_path / "scores.csv"
    arguments = ["--images", str(PHANTOMS), "--out", str(out)] + ["--evaluate"] * evaluate
    done = start(absent, "utils.tools.predict", *arguments, results=str(tmp_path))
    said, _ = done.communicate(timeout=SECONDS)
    assert done.returncode == 0, said
    assert ("ROC-AUC" in said) == evaluate
    reference = pd.read_csv(REFERENCE_PREDICTIONS)
    scores = pd.read_csv(out)
    pd.testing.assert_frame_equal(scores[reference.columns], reference, atol=2e-3)


def test_predict_reads_dicom(absent, tmp_path):
    content = hard_inputs.dicom(np.round(4095 * hard_inputs.draw_chest()))
    hard_inputs.save(tmp_path / "images" / "IM000001", content)
    out = tmp_path / "scores.csv"
    arguments = ["--images", str(tmp_path / "images"), "--out", str(out)]
    done = start(absent, "utils.tools.predict", *arguments, results=str(tmp_path))
    said, _ = done.communicate(timeout=SECONDS)
    assert done.returncode == 0, said
    assert pd.read_csv(out).probability.between(0, 1).all()


@pytest.mark.parametrize("module", ["utils.tools.predict", "demo"])
@pytest.mark.parametrize("missing", ["keras", "tensorflow"])
def test_a_model_for_keras_is_refused_with_a_remedy(absent, module, missing, tmp_path):
    absent = absent if missing == "keras" else {"tensorflow"}
    arguments = ["--model", str(ROOT / "models" / "small.keras")]
    if module != "demo":
        arguments += ["--images", str(PHANTOMS), "--out", str(tmp_path / "scores.csv")]
    done = start(absent, module, *arguments, results=str(tmp_path))
    said, _ = done.communicate(timeout=SECONDS)
    assert done.returncode == 2 and "Traceback" not in said, said
    assert f"small.keras needs Keras and TensorFlow, and {missing} is not installed here" in said
    assert "make setup" in said and "leave MODEL out" in said
    assert not (tmp_path / "scores.csv").exists()


def test_the_demo_answers_with_a_map_and_knows_radiographs(absent, tmp_path):
    process = start(absent, "demo", "--port", "0", results=str(tmp_path))
    try:
        address = read_address(process)
        reference = pd.read_csv(REFERENCE_PREDICTIONS)
        for image, probability in zip(reference.image, reference.probability, strict=True):
            content = io.BytesIO((PHANTOMS / image).read_bytes())
            response = requests.post(
                f"{address}/api/predict", files={"image": content}, timeout=SECONDS
            )
            assert response.status_code == 200, response.text
            answer = response.json()
            assert answer["probability"] == pytest.approx(probability, abs=2e-3)
            assert answer["heat_maximum"] > 0 and answer["strange"] is False
    finally:
        process.kill()
        process.communicate()
