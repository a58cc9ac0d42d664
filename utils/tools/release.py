"""Release a small model: half precision, its provenance, and predictions to check it by.

`python -m utils.tools.release --study full --candidate NAME` (`make release CANDIDATE=NAME`) takes
a final model, rounds its weights, and writes it to `models/` with its record, as a Keras file and
as `models/shipped.onnx`, which is scored without TensorFlow. What the rounded model predicts for
validation and test is its own row in the tables of notebook 09. `models/reference_predictions.csv`
holds its predictions for a few phantoms, so that anyone can check an installation, and
`models/shipped_guard.npz` says which images it should not have been given (`utils.tools.guard`).
`--onnx` (`make release ONNX=1`) writes the ONNX file of the model that is there and nothing else;
`--guard` (`make release GUARD=1`) fits and measures its guard alone.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import keras

from utils.common.constants import SCORED_SPLITS
from utils.common.files import read_json, write_json
from utils.common.paths import final_name, held_out_dir, model_file, results_dir
from utils.common.provenance import read_provenance
from utils.common.study import load_study
from utils.data.index import build_index, open_dataset, open_study_index
from utils.evaluation.calibration import fit_temperature
from utils.evaluation.predictions import write_predictions
from utils.models.export import shrink_model
from utils.models.onnx_export import export_onnx
from utils.models.prediction import predict_files
from utils.models.recipe import Candidate
from utils.models.registry import (
    ONNX_FILE,
    PHANTOMS,
    RECORD,
    REFERENCE_PREDICTIONS,
    SHIPPED,
    SHIPPED_MODEL,
    register_model,
)
from utils.selection.rule import choose_block_threshold, read_held_out
from utils.tools.guard import release_guard
from utils.tools.predict import score_folder, write_scores

_PHANTOMS_PER_CLASS = 3


def release_model(study_name: str, candidate: str, seed: int, folds: Sequence[str]) -> Path:
    """Round a final model, write it to `models/`, and let it predict.

    The threshold is that of the candidate's block folds.

    Args:
        study_name: Of the study.
        candidate: Name of the candidate.
        seed: Of the final model.
        folds: Block folds from whose held-out images the threshold is chosen.

    Returns:
        The shipped file.

    Raises:
        FileNotFoundError: if the final model's network is not on this machine.
        TooLargeError: if it does not fit into 10 MB.
        ExportError: if it has a layer that is not translated to ONNX.
    """
    name = final_name(candidate, seed)
    record = read_provenance(results_dir(study_name), name)
    network = keras.models.load_model(model_file(study_name, name), compile=False)
    file = SHIPPED / f"{SHIPPED_MODEL}.keras"
    shrink_model(network, file)
    recipe = Candidate.from_record(record["recipe"])
    settings = load_study(study_name)
    threshold = choose_block_threshold(
        read_held_out(held_out_dir(study_name), recipe, folds, [settings.seed])
    )
    root, index = open_study_index(settings)
    parts = {split: index[index.split == split] for split in SCORED_SPLITS}
    probabilities = {
        split: predict_files(network, root, rows.image_id, split) for split, rows in parts.items()
    }
    write_predictions(study_name, f"final/{SHIPPED_MODEL}", index, probabilities)
    temperature = fit_temperature(parts["validation"].label, probabilities["validation"])
    register_model(
        SHIPPED, SHIPPED_MODEL, file, round(threshold, 6), round(temperature, 6),
        f"{candidate}, seed {seed}, in half precision, shipped with the repository",
        candidate=record["recipe"], seed=seed, threshold_from=list(folds),
        weights=record["weights"]["description"], dataset=record["dataset"],
    )  # fmt: skip
    release_onnx(network)
    release_guard(settings)
    copy_phantoms(PHANTOMS)
    write_scores(REFERENCE_PREDICTIONS, score_folder(network, PHANTOMS), threshold)
    return file


def release_onnx(network: keras.Model) -> Path:
    """Write the shipped network as ONNX, add that to its record, and return the file.

    Raises:
        ExportError: if it cannot be written, or answers otherwise than the network.
    """
    file = SHIPPED / ONNX_FILE
    record = export_onnx(network, file)
    models = read_json(SHIPPED / RECORD)
    models[SHIPPED_MODEL]["onnx"] = record
    write_json(SHIPPED / RECORD, models)
    return file


def copy_phantoms(folder: Path) -> None:
    """Copy a few phantoms of each class into a folder, in the layout that `EVALUATE=1` reads."""
    root = open_dataset("phantoms")
    index = build_index(root, seed=0, validation_fraction=0.5)
    for row in index[index.split == "test"].groupby("label").head(_PHANTOMS_PER_CLASS).itertuples():
        source = root / row.image_id
        target = folder / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def main() -> None:
    """Release a model from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="full")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--candidate", help="finished model to release")
    what.add_argument("--onnx", action="store_true", help="write the released one as ONNX again")
    what.add_argument("--guard", action="store_true", help="fit the released one's guard again")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folds", nargs="+", help="by default those of the second round")
    arguments = parser.parse_args()
    if arguments.onnx:
        network = keras.models.load_model(SHIPPED / f"{SHIPPED_MODEL}.keras", compile=False)
        file = release_onnx(network)
    elif arguments.guard:
        file = release_guard(load_study(arguments.study))
    else:
        folds = arguments.folds or load_study(arguments.study).second_round_folds
        file = release_model(arguments.study, arguments.candidate, arguments.seed, folds)
    sys.stdout.write(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
