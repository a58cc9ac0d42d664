"""Release round two's network: half precision, its provenance, and predictions to check it by.

`python -m utils.tools.release` (`make release`) takes the network that `docs/round_two.md` named,
rounds its weights, and writes it with its ten crops to `models/` with its record, as a Keras file
and as `models/released.onnx`, which is scored without TensorFlow.
`models/reference_predictions.csv` holds its predictions for a few phantoms, so that anyone can
check an installation, and `models/released_guard.npz` says which images it should not have been
given (`utils.tools.guard`). `--onnx` (`make release ONNX=1`) writes the ONNX file of the network
that is there and nothing else; `--guard` (`make release GUARD=1`) fits and measures its guard
alone.
"""

import argparse
import shutil
import sys
from pathlib import Path

import keras

from utils.common.files import read_json, write_json
from utils.common.paths import dataset_dir, final_name, model_file, predictions_file, results_dir
from utils.common.provenance import read_provenance
from utils.common.study import load_study
from utils.data.index import build_index
from utils.evaluation.calibration import fit_temperature
from utils.evaluation.external import HALF
from utils.evaluation.predictions import load_predictions, select_split
from utils.models.export import shrink_model, with_ten_crops, without_ten_crops
from utils.models.guard import open_guard
from utils.models.onnx_export import export_onnx
from utils.models.registry import (
    ONNX_FILE,
    PHANTOMS,
    RECORD,
    REFERENCE_PREDICTIONS,
    RELEASED_MODEL,
    SHIPPED,
    open_shipped_model,
    register_model,
)
from utils.phantoms.sets import write_phantom_dataset
from utils.selection.choices import RELEASED, ROUND_TWO_RECIPES, ROUND_TWO_SEEDS
from utils.tools.guard import release_guard
from utils.tools.predict import score_folder, write_scores

_PHANTOMS_PER_CLASS = 3


def release_model(study_name: str) -> Path:
    """Round the network that round two named, write it to `models/`, and let it predict phantoms.

    Nothing is chosen. The temperature is fitted on the validation images, which the network has
    predicted before.

    Args:
        study_name: Of the study.

    Returns:
        The released file.

    Raises:
        FileNotFoundError: if the network or its predictions are not on this machine.
        TooLargeError: if it does not fit into 10 MB.
        ExportError: if it has a layer that is not translated to ONNX.
    """
    name = final_name(ROUND_TWO_RECIPES[0], ROUND_TWO_SEEDS[0])
    record = read_provenance(results_dir(study_name), name)
    validation = select_split(
        load_predictions(predictions_file(study_name, RELEASED)), "validation"
    )
    temperature = fit_temperature(validation.y_true, validation.probability)
    network = keras.models.load_model(model_file(study_name, name), compile=False)
    file = SHIPPED / f"{RELEASED_MODEL}.keras"
    shrink_model(with_ten_crops(network), file)
    register_model(
        SHIPPED, RELEASED_MODEL, file, HALF, round(temperature, 6),
        f"{record['recipe']['name']}, seed {record['seed']}, ten crops, in half precision",
        candidate=record["recipe"], seed=record["seed"], registered=record["registered"],
        weights=record["weights"]["description"], dataset=record["dataset"],
    )  # fmt: skip
    models = read_json(SHIPPED / RECORD)  # the first of them is taken where none is named
    write_json(SHIPPED / RECORD, {RELEASED_MODEL: models.pop(RELEASED_MODEL)} | models)
    release_onnx()
    release_guard(load_study(study_name))
    copy_phantoms(PHANTOMS)
    scorer = open_shipped_model()
    network = scorer.open()
    scores = score_folder(network, PHANTOMS, guarded=open_guard(scorer, network))
    write_scores(REFERENCE_PREDICTIONS, scores, HALF)
    return file


def release_onnx() -> Path:
    """Write the released network as ONNX, add that to its record, and return the file.

    Raises:
        ExportError: if it cannot be written, or answers otherwise than the network.
    """
    ten_crops = keras.models.load_model(SHIPPED / f"{RELEASED_MODEL}.keras", compile=False)
    file = SHIPPED / ONNX_FILE
    record = export_onnx(without_ten_crops(ten_crops), file, crops=True)
    models = read_json(SHIPPED / RECORD)
    models[RELEASED_MODEL]["onnx"] = record
    write_json(SHIPPED / RECORD, models)
    return file


def copy_phantoms(folder: Path) -> None:
    """Copy a few phantoms of each class into a folder, in the layout that `EVALUATE=1` reads.

    They were taken at no site, as the sample study's were when the first model was released.
    """
    root = write_phantom_dataset(dataset_dir("phantoms_without_site"))
    index = build_index(root, seed=0, validation_fraction=0.5)
    for row in index[index.split == "test"].groupby("label").head(_PHANTOMS_PER_CLASS).itertuples():
        source = root / row.image_id
        target = folder / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def main() -> None:
    """Release the network from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--onnx", action="store_true", help="write the released one as ONNX again")
    part.add_argument("--guard", action="store_true", help="fit the released one's guard again")
    arguments = parser.parse_args()
    if arguments.onnx:
        file = release_onnx()
    elif arguments.guard:
        file = release_guard(load_study(arguments.study))
    else:
        file = release_model(arguments.study)
    sys.stdout.write(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
