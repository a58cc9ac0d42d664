"""Every exercise of every notebook: empty cells pass, wrong answers get a hint, solutions pass.

The cells, their imports and the solutions are those of the repository; the data they need are small
stand-ins. The sample study, run with its exercises solved, proves the same on the phantoms.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from exercises import checking
from exercises.checking import UNANSWERED, WrongAnswer
from tests.test_notebooks import NAMES, cells_of, read_committed
from utils.common.paths import ROOT
from utils.data.augmentation import PUBLISHED_RANGES
from utils.selection import candidates as candidate_list
from utils.tools.solutions import find_exercises, read_solutions, solutions_file

PROSE_EXERCISES: set[str] = set()
"""Notebooks whose exercises have no checks yet."""


@dataclass(frozen=True)
class Case:
    """Stand-ins for what a cell needs of the notebook, and typical wrong answers."""

    wrong: list[tuple[str, str]]
    """What takes the place of `...`, and a word of the hint that this mistake must get."""
    variables: Callable[[], dict[str, Any]] = dict


# ---- stand-ins


def index() -> dict[str, Any]:
    """Sixty children with one, two or three images; the test set's must not count."""
    rows = [
        {"patient_id": f"person-{child}-virus", "label": child % 2, "split": split}
        for child in range(60)
        for split in (["train"] * (child % 3 + 1) if child < 50 else ["test"])
    ]
    table = pd.DataFrame(rows).assign(image_id=lambda frame: frame.index.astype(str))
    return {"index": table, "validation_fraction": 0.35, "seed": 42}


def training_images() -> dict[str, Any]:
    keys = pd.Series([f"image {number}" for number in range(30)])
    return {
        "ranges": PUBLISHED_RANGES,
        "train": pd.DataFrame({"pixel_sha256": keys}),
        "example": SimpleNamespace(pixel_sha256=keys[0]),
        "seed": 42,
    }


def backbone(channels: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"backbone": SimpleNamespace(output_shape=(None, 7, 7, channels))}


def predictions() -> dict[str, Any]:
    """Validation parts at 0.3, with 0.5 too high, and test at 0.8."""
    rows = [
        ("validation", [0.1, 0.2, 0.25, 0.35, 0.4, 0.9], [0, 0, 0, 1, 1, 1]),
        ("test", [0.3, 0.6, 0.7, 0.75, 0.85, 0.9], [0, 0, 0, 0, 1, 1]),
    ]
    tables = [
        pd.DataFrame({"split": split, "probability": probability, "y_true": labels})
        for split, probability, labels in rows
    ]
    return {"predictions": {"resnet50": pd.concat(tables, ignore_index=True)}}


def metrics() -> dict[str, Any]:
    values = {"sensitivity": 0.979, "specificity": 0.615, "ppv": 0.809}
    scores = {name: {"value": value} for name, value in values.items()}
    return {"metrics": {"models": {"resnet50": {"test": scores}}}}


def networks() -> dict[str, Any]:
    """A cheap bad network, a good one, and one that costs more and brings less."""
    names = ["cheap", "good", "heavy"]
    return {
        "compared": pd.DataFrame({"candidate": names, "criterion": [0.98, 0.994, 0.992]}),
        "cost": pd.DataFrame({"candidate": names, "gigaflops": [0.06, 0.4, 0.6]}),
    }


def judged() -> dict[str, Any]:
    """Twenty test images and a threshold of 0.3; the two nearest to it are called wrongly."""
    probability = [0.01 * number for number in range(1, 9)] + [0.28, 0.31, 0.45]
    probability += [0.6 + 0.02 * number for number in range(9)]
    rows = pd.DataFrame({"probability": probability, "y_true": [0] * 8 + [1, 0, 1] + [1] * 9})
    rows.loc[0, "y_true"] = 1
    return {"test": rows, "threshold": 0.3}


def comparison() -> dict[str, Any]:
    """Three recipes: `long` wins by the criterion, the mild one on the block as it is."""
    mild, base = candidate_list.MILD, candidate_list.BASE
    compared = pd.DataFrame({
        "candidate": [mild, base, "long"],
        "criterion": [0.989, 0.988, 0.995],
        "standard_error": [0.0016, 0.0021, 0.0012],
        "block": [0.9957, 0.990, 0.9956],
        "low": [-0.0007, 0.0, 0.0045],
        "high": [0.0033, 0.0, 0.0090],
    })  # fmt: skip
    by_change = pd.DataFrame({"noise": [0.98, 0.986, 0.994]}, index=list(compared.candidate))
    return {"compared": compared, "by_change": by_change, "recipes": list(range(7))}


CASES = {
    "01_data_exploration": {
        "Exercise 1: a random split": Case(
            [
                ("0.0", "too low"),  # a random draw keeps nobody apart
                ("1.0", "too high"),
                ("0.35", "too low"),  # the share that is held out
                ("'58%'", "0.35, not 35%"),
                ("58", "between 0 and 1"),
                ("True", "must be a number"),
            ],
            index,
        ),
        "Exercise 2: a key that leaks": Case(
            [
                ("image.image_id", "assigned on its own"),
                ("image.patient_id", "Could they be one child"),
                ("image.patient_id.split('-')[1]", "series"),  # the number alone
                ("'the same'", "one side"),
                ("image['child']", "stopped with KeyError"),
                ("None", "is there a `return`"),
            ]
        ),
        "Exercise 3: how many images are enough": Case(
            [
                ("48", "square root"),  # three times as many
                ("16", "0.30 wide"),
                ("1600", "far fewer"),
                ("100", "multiple of 16"),
                ("-16", "-16 does not"),
                ("112.5", "whole number"),
            ]
        ),
    },
    "02_augmentation": {
        "Exercise 1: milder ranges": Case(
            [
                ("ranges", "come from outside"),
                ("replace(ranges, rotation=0.0)", "no longer acts"),
                ("replace(ranges, rotation=2.0)", "come from outside"),  # rotation costs least
                ("replace(ranges, zoom=(1.0, 1.0), width_shift=0.0)", "width_shift, zoom no"),
                ("{'rotation': 5}", "not a dict"),
                ("replace(ranges, zoom=0.1)", "pair of factors"),
            ],
            training_images,
        ),
        "Exercise 2: a tutorial's preprocessing": Case(
            [
                ("backbones.preprocess_array(images[..., ::-1] / 255)", "which range"),
                ("backbones.preprocess_array(images / 255)", "which range"),
                ("backbones.preprocess_array(images[..., ::-1])", "order reversed"),
                ("images", "no mean was subtracted"),
                ("images - 110", "black becomes"),
                ("backbones.preprocess_array(images).mean(axis=-1)", "keep the shape"),
                ("backbones.preprocess(images)", "stopped with AttributeError"),
            ]
        ),
        "Exercise 3: a thousand flips": Case(
            [
                ("(400, 600)", "says little"),
                ("(0, 100)", "above your range"),
                ("(900, 1000)", "below your range"),
                ("500", "must be a pair"),
                ("(530, 470)", "lower end"),
                ("(0.45, 'half')", "must be a number"),
            ],
            training_images,
        ),
    },
    "03_vgg19_baseline": {
        "Exercise 1: pooling instead of Flatten": Case(
            [
                ("12_911_490", "that is the head with Flatten"),
                ("512 * 512 + 512 * 128 + 128 * 2", "bias"),
                ("512 * 512 + 512", "Two more"),
                ("512", "one number for each channel"),
            ],
            backbone(512),
        ),
        "Exercise 2: luck or knowledge": Case(
            [
                ("0.0", "too small"),
                ("0.5", "too large"),
                ("0.08", "too small"),  # one standard deviation
                ("0.66", "between 0 and 0.5"),  # the end of the range
            ],
            lambda: {"labels": {"validation": np.repeat([0, 1], [24, 30])}},
        ),
    },
    "04_resnet50_training": {
        "Exercise 1: a wider input": Case(
            [
                ("51_380_736.5", "counted"),
                ("round(51_380_224 * 320 / 224)", "grows with the side"),
                ("10 * 10 * 2048 * 512", "bias"),
                ("51_380_736", "How many positions"),
            ],
            backbone(2048),
        ),
        "Exercise 2: one sigmoid unit": Case(
            [
                ("np.argmax(output, axis=1)", "every image is predicted as 0"),
                ("(output >= 0.5).astype(int)", "one label per image"),
                ("output[:, 0]", "no labels yet"),
                ("output[:, 0] >= 0", "0.02 is misclassified"),
                ("np.argmax(output)", "each image needs a label"),
                ("output[:, 0] < 0.5", "swapped"),
                ("(output[:, 0] > 0.55).astype(int)", "0.51 is misclassified"),
                ("output[:, 1] >= 0.5", "stopped with IndexError"),
            ]
        ),
        "Exercise 3: confident mistakes": Case(
            [
                ("1.0", "too small"),  # they are equally accurate
                ("0.01", "too small"),  # the loss of images that are right
                ("6.9 / 2.3", "too large"),  # of those that are wrong
                ("float('nan')", "must be a number"),
            ]
        ),
    },
    "05_evaluation": {
        "Exercise 1: a threshold that saw the answers": Case(
            [
                (
                    "choose_threshold("
                    "*rows[rows.split == 'test'][['y_true', 'probability']].to_numpy().T)",
                    "has seen them",
                ),
                ("choose_threshold(rows.y_true, rows.probability)", "has seen them"),
                ("rows.probability.median()", "has seen them"),
                ("0.5", "Which sum does the notebook maximize"),
                ("select_split(rows, 'validation')", "must be a number"),
                ("rows.threshold", "stopped with AttributeError"),
            ],
            predictions,
        ),
        "Exercise 2: five children in a hundred": Case(
            [
                ("0.979", "the other way round"),
                ("0.81", "5 of 100"),
                ("0.05", "too low"),
                ("0.5", "too high"),
            ],
            metrics,
        ),
        "Exercise 3: fifteen of sixteen by luck": Case(
            [
                ("0.8**16", "miss just one"),
                ("16 * 0.8**15 * 0.2", "exactly 15"),
                ("0.8", "too high"),
                ("0.0", "too low"),
            ]
        ),
    },
    "06_grad_cam": {
        "Exercise 1: maps that can be compared": Case(
            [
                ("maps / maps.max(axis=(1, 2), keepdims=True)", "not finite"),
                ("maps / (maps.max(axis=(1, 2), keepdims=True) + 1e-9)", "the same for all"),
                ("maps / maps.max()", "if all maps are zero"),
                ("maps", "should become 1"),
                ("maps.max()", "same shape"),
            ],
            lambda: {"maps": np.linspace(0, 0.2, 48).reshape(3, 4, 4)},
        ),
        "Exercise 2: scaled logits": Case(
            [
                ("1", "units of the score"),
                ("100", "the gradient grows"),
                ("0.1", "contains the last layer"),
                ("'ten'", "must be a number"),
            ]
        ),
    },
    "07_fine_tuning": {
        "Exercise 1: choosing on the block alone": Case(
            [
                ("'long'", "all eight versions"),
                ("candidate_list.BASE", "others have a higher AUC"),
                ("'the best'", "none of the recipes"),
                ("3", "none of the recipes"),
                ("['long']", "none of the recipes"),
            ],
            comparison,
        ),
        "Exercise 2: the best of many": Case(
            [
                ("0.0", "too low"),  # errors cancel, but not those of the winner
                ("2.0", "too high"),
                ("len(recipes) ** 0.5", "too high"),
            ],
            comparison,
        ),
        "Exercise 3: paired intervals": Case(
            [
                ("3.92 * (0.0016 + 0.0021) / 0.0040", "added the errors"),
                ("1.96 * 0.00264 / 0.0040", "*both* sides"),
                ("1.0", "variance"),
                ("3.92 * 0.0016 / 0.0040", "variance"),
            ],
            comparison,
        ),
    },
    "08_architectures": {
        "Exercise 1: what attention costs": Case(
            [
                ("224 / 64", "two sides"),
                ("(224 / 64) ** 2", "attends to which"),
                ("784", "count the patches"),
                ("'150'", "must be a number"),
            ]
        ),
        "Exercise 2: Pareto-optimal networks": Case(
            [
                ("{'good'}", "cheapest network"),
                ("{'cheap', 'good', 'heavy'}", "heavy is not Pareto-optimal"),
                ("compared.candidate", "heavy is not Pareto-optimal"),
                ("'good'", "a set of names"),
                ("{'cheap', 'best'}", "none of the networks"),
            ],
            networks,
        ),
        "Exercise 3: combining two models": Case(
            [
                ("(first.probability + second.probability) / 2", "row numbers"),
                (
                    "((first.set_index('image_id').probability >= 0.5) * 0.5"
                    " + (second.set_index('image_id').probability >= 0.5) * 0.5)",
                    "means of labels",
                ),
                (
                    "pd.Series((first.probability + second.probability).to_numpy() / 2, "
                    "first.image_id)",
                    "same image",
                ),
                (
                    "first.set_index('image_id').probability "
                    "+ second.set_index('image_id').probability",
                    "that is the sum",
                ),
                ("first.probability.mean()", "pandas.Series"),
            ],
            lambda: {"pd": pd},
        ),
    },
    "09_outside_validation": {
        "Exercise 1: the interval of a paired difference": Case(
            [
                ("0.0196", "scored on different patients"),
                ("0.00721", "standard error of the difference"),
                ("0.0274", "not to overlap"),
                ("0.0238", "added the covariance"),
                ("0.5", "Cov(A, B)"),
                ("-0.01", "must lie between"),
            ]
        ),
        "Exercise 2: seen by number": Case(
            [
                ("len(set(training) & set(test))", "no whole name"),
                (
                    "len({name.rsplit('-', 1)[0] for name in training}"
                    " & {name.rsplit('-', 1)[0] for name in test})",
                    "counts numbers",
                ),
                (
                    "sum(name.split('-')[-2] in {known.split('-')[-2] for known in training}"
                    " for name in test)",
                    "two series",
                ),
                (
                    "sum(name.rsplit('-', 1)[0] in {own.rsplit('-', 1)[0] for own in test}"
                    " for name in training)",
                    "counts the training images",
                ),
                ("len(test)", "is not right"),
                ("'three'", "must be a number"),
                ("None", "returns nothing"),
            ]
        ),
    },
    "10_operating_point": {
        "Exercise 1: what a temperature changes": Case(
            [
                ("{'ROC-AUC', 'ECE'}", "reverse their order"),
                ("{'ECE', 'Brier score', 'accuracy at 0.5'}", "logit of 0"),
                ("{'ECE'}", "1 more"),
                ("set()", "2 more"),
                ("{'accuracy'}", "none of the four"),
                ("'ECE'", "a set of names"),
            ]
        ),
        "Exercise 2: selective prediction": Case(
            [
                ("((rows.probability >= threshold) == rows.y_true).mean()", "did not abstain"),
                (
                    "((rows.probability >= threshold) == rows.y_true)"
                    "[(rows.probability - threshold).abs().rank() <= 2].mean()",
                    "those on which it abstains",
                ),
                (
                    "((rows.probability >= threshold) == rows.y_true)"
                    "[(rows.probability - 0.5).abs().rank() > 2].mean()",
                    "this model decides at 0.300",
                ),
                (
                    "((rows.probability >= 0.5) == rows.y_true)"
                    "[(rows.probability - threshold).abs().rank() > 2].mean()",
                    "judged at 0.5",
                ),
                ("0.5", "that is nearest (2 images)"),
                ("None", "returns nothing"),
            ],
            judged,
        ),
    },
    "11_shortcuts": {
        "Exercise 1: five models ranked by chance": Case(
            [
                ("1 / 120", "one swap of neighbors"),
                ("0.1", "too high"),
                ("0.0", "too low"),
                ("'5 of 120'", "must be a number"),
            ]
        ),
        "Exercise 2: what covered lungs show": Case(
            [
                ("{'a', 'b', 'c'}", "may have fallen"),
                ("{'a', 'c', 'd'}", "covered alone"),
                ("{'c'}", "0.5 is what is left"),
                ("{'a'}", "1 more"),
                ("set()", "2 more"),
                ("'follows'", "a set of letters"),
                ("3", "a set of letters"),
            ]
        ),
    },
    "12_trusting_heat_maps": {
        "Exercise 1: a map that does not change": Case(
            [
                ("{'a', 'b', 'c'}", "not with an opacity"),
                ("{'a', 'c', 'd'}", "has learned nothing"),
                ("{'a'}", "same image"),
                ("{'c'}", "did it not depend on"),
                ("set()", "2 more"),
                ("'follows'", "a set of letters"),
                ("3", "a set of letters"),
            ]
        ),
        "Exercise 2: undoing a shift": Case(
            [
                ("np.roll(second, move, axis=(0, 1))", "twice that"),
                ("np.roll(second, (-move[1], -move[0]), axis=(0, 1))", "exchanged"),
                ("second", "stayed where it was"),
                ("second[8:, 8:]", "the shape should stay"),
                ("np.roll(second, -1)", "as before the shift"),
                ("None", "returns nothing"),
            ],
            lambda: {"shifts": {"down": (8, 0), "right": (0, 8)}, "np": np},
        ),
        "Exercise 3: the optimal deletion order": Case(
            [
                ("0.5", "random order"),
                ("0.9", "ideal insertion"),
                ("0.2", "falls linearly"),
                ("0.3", "Draw the curve"),
                ("'0.1'", "must be a number"),
            ]
        ),
    },
}
"""For every exercise what is tested; `test_every_exercise_is_tested` names one that is left out."""

EXERCISES = [
    pytest.param(notebook, name, id=f"{notebook[:2]}-{name}")
    for notebook in NAMES
    for name in find_exercises(read_committed(notebook))
]
WRONG = [
    pytest.param(notebook, name, answer, hint, id=f"{notebook[:2]}-{name}: {answer}")
    for notebook, cases in CASES.items()
    for name, case in cases.items()
    for answer, hint in case.wrong
]


# ---- running a cell


def cell_of(notebook: str, name: str) -> str:
    return find_exercises(read_committed(notebook))[name].source


def run_cell(notebook: str, name: str, source: str) -> None:
    """Run code in place of an exercise cell, after the notebook's imports."""
    namespace: dict[str, Any] = {}
    exec(cells_of(read_committed(notebook), "code")[0].source, namespace)
    namespace |= CASES[notebook][name].variables()
    exec(compile(source, f"{notebook}, {name}", "exec"), namespace)


@pytest.mark.parametrize(("notebook", "name"), EXERCISES)
def test_empty_cell_is_not_answered_yet(notebook, name, capsys):
    run_cell(notebook, name, cell_of(notebook, name))
    assert capsys.readouterr().out == f"{UNANSWERED}\n"


@pytest.mark.parametrize(("notebook", "name", "answer", "hint"), WRONG)
def test_wrong_answer_gets_its_hint(notebook, name, answer, hint, capsys):
    with pytest.raises(WrongAnswer, match=re.escape(hint)):
        run_cell(notebook, name, cell_of(notebook, name).replace("...", answer))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("notebook", "name"), EXERCISES)
def test_solution_is_right(notebook, name, capsys):
    run_cell(notebook, name, read_solutions(solutions_of(notebook))[name])
    assert re.fullmatch(r"right: .+\n", capsys.readouterr().out)


# ---- nothing is left out


def solutions_of(notebook: str) -> Path:
    return solutions_file(ROOT / "notebooks" / f"{notebook}.ipynb")


def test_every_exercise_is_tested_with_two_wrong_answers():
    tested = {(notebook, name) for notebook, cases in CASES.items() for name in cases}
    assert tested == {tuple(parameters.values) for parameters in EXERCISES}
    few = [name for cases in CASES.values() for name, case in cases.items() if len(case.wrong) < 2]
    assert few == []


@pytest.mark.parametrize("notebook", NAMES)
def test_every_exercise_has_a_solution_that_calls_the_same_check(notebook):
    cells = find_exercises(read_committed(notebook))
    if not cells:
        assert notebook in PROSE_EXERCISES, f"{notebook} has no exercise with a check"
        assert not solutions_of(notebook).exists()
        return
    solutions = read_solutions(solutions_of(notebook))
    assert list(solutions) == list(cells)
    for name, cell in cells.items():
        assert ast.unparse(ast.parse(cell.source).body[-1]) in ast.unparse(
            ast.parse(solutions[name])
        )


def test_every_solution_belongs_to_a_notebook_and_links_to_it():
    for file in (ROOT / "exercises" / "solutions").iterdir():
        assert file.stem in NAMES
        assert f"](../../notebooks/{file.stem}.ipynb)" in file.read_text(encoding="utf-8")
        last_cells = "".join(
            cell.source for cell in cells_of(read_committed(file.stem), "markdown")
        )
        assert f"](../exercises/solutions/{file.name})" in last_cells


def test_every_check_is_used_by_the_notebook_of_its_module():
    modules = {file.stem for file in (ROOT / "exercises").glob("*.py")} - {"__init__", "checking"}
    assert modules == {notebook[3:] for notebook in CASES}
    for notebook in CASES:
        module = importlib.import_module(f"exercises.{notebook[3:]}")
        used = re.findall(
            r"^exercises\.(\w+)\(",
            "\n".join(cell.source for cell in find_exercises(read_committed(notebook)).values()),
            re.MULTILINE,
        )
        checks = [
            name
            for name, function in inspect.getmembers(module, inspect.isfunction)
            if function.__module__ == module.__name__ and not name.startswith("_")
        ]
        assert sorted(used) == sorted(checks), notebook


def test_some_ask_for_a_prediction_and_some_for_a_mistake():
    text = "\n".join(
        cell.source for notebook in CASES for cell in cells_of(read_committed(notebook), "markdown")
    )
    assert len(re.findall(r"^Predict before you run\.", text, re.MULTILINE)) >= 3
    assert len(re.findall(r"^Find the mistakes?\.", text, re.MULTILINE)) >= 4


# ---- what the checks share


@checking.exercise
def check_seven(answer: object, *data: object) -> str:
    """A check that accepts a number, or a function that returns one."""
    number = checking.call(answer, *data) if callable(answer) else answer
    if checking.read_number(number, "it", 0, 10) != 7:
        raise WrongAnswer("one more than six")
    return "seven"


def test_verdict_of_a_check(capsys):
    check_seven(...)
    check_seven(lambda: ...)
    check_seven(7)
    check_seven(lambda number: number + 1, 6)
    assert capsys.readouterr().out.split("\n") == [UNANSWERED] * 2 + ["right: seven"] * 2 + [""]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (6, "one more than six"),
        (np.float32(6), "one more than six"),
        (11, "it must lie between 0 and 10; 11 does not"),
        (float("nan"), "it must be a number, not nan"),
        (False, "it must be a number, not False"),
        ("7%", "not '7%'; write a percentage as a proportion"),
        (None, "it must be a number, not None"),
        (np.arange(100), r"not array\(\[ 0,"),
        (lambda: max, "call the function and pass what it returns"),
        (lambda: None, "<lambda> returns nothing"),
        (lambda: 1 / 0, "<lambda> stopped with ZeroDivisionError: division by zero"),
    ],
)
def test_answer_that_cannot_be_used_is_explained(answer, message):
    with pytest.raises(WrongAnswer, match=message):
        check_seven(answer)


def test_other_value_is_no_function():
    with pytest.raises(WrongAnswer, match="pass the function itself, without calling it"):
        checking.call([1, 2])


def test_hint_is_shown_without_the_way_through_our_code():
    assert WrongAnswer("think")._render_traceback_() == ["WrongAnswer: think"]
