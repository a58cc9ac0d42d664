"""What follows from the measurements of `make bench`: ceilings, ratios, goals and the cost model.

Pure functions of the record that `utils.benchmark.run` writes, in the order in which it comes
about; nothing here measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

WEIGHT_PASSES = 9
"""Passes of a training step over the head's weights. Forward: read the weights. Backward: write
the gradient. Adam: read the gradient; read and write both moments; read and write the weights."""
BYTES_PER_WEIGHT = 4
ACTIVATION_SIZE = 7 * 7 * 2048
"""Numbers in the activation of one image by ResNet50."""
OTHERS = ("reference_loop", "tf_data_loop", "bottleneck_once")
CONTENDERS = (*OTHERS, "ours_cold", "ours_warm")


@dataclass(frozen=True)
class Goal:
    """What a ratio ought to reach."""

    value: float
    least: float | None = None
    """Below this on no machine."""
    at_most: bool = False
    """Whether smaller is better."""


GOALS = {
    "cold": Goal(5, least=4),
    "warm": Goal(15, least=12),
    "cold_of_ceiling": Goal(0.8),
    "warm_of_ceiling": Goal(0.8),
    "extraction": Goal(0.9),
    "flatten_step": Goal(0.5),
    "cost_per_image": Goal(1.1, at_most=True),
    "scoring_first": Goal(2, at_most=True),
    "scoring_many": Goal(0.5, at_most=True),
    "scoring_memory": Goal(1 / 3, at_most=True),
}
"""Of these `scoring_first` is in seconds, and the others are ratios."""


def count_steps(images: int, batch_size: int) -> int:
    """Return the training steps of an epoch."""
    return -(-images // batch_size)


def step_bounds(
    parameters: int, batch_size: int, bytes_per_second: float, flops: float
) -> dict[str, float]:
    """Return the seconds that a training step of the head cannot go below.

    Args:
        parameters: Of the head, nearly all of them in its first layer.
        batch_size: Images per step.
        bytes_per_second: Memory bandwidth.
        flops: Floating-point operations per second of a matrix product.

    Returns:
        `bandwidth`: the time of `WEIGHT_PASSES` passes over the float32 weights; `compute`: that
        of one matrix product forward and one backward (the first layer needs no gradient of its
        input), a multiplication and an addition for each weight and image.
    """
    return {
        "bandwidth": WEIGHT_PASSES * BYTES_PER_WEIGHT * parameters / bytes_per_second,
        "compute": 2 * 2 * batch_size * parameters / flops,
    }


def ceiling_seconds(record: dict[str, Any]) -> dict[str, float]:
    """Return the seconds below which no cache of augmented copies can train.

    Returns:
        `cold`, from an empty cache, and `warm`, from a full one; `forward` and `steps` are the
        two parts of `cold`.
    """
    images = record["images"]
    passes = record["settings"]["views"] * images["train"] + images["validation"]
    forward = passes / record["extraction"]["bare"]["median"]
    steps = record["steps"] * record["step"]["bounds"]["bandwidth"]
    return {"forward": forward, "steps": steps, "cold": forward + steps, "warm": steps}


def compute_ratios(record: dict[str, Any]) -> dict[str, float]:
    """Return the ratios of a record that has everything else, by the names of `GOALS`."""
    seconds = {name: contender["seconds"] for name, contender in record["contenders"].items()}
    ceiling, extraction, step = (record[key] for key in ("ceiling", "extraction", "step"))
    costs = list(_seconds_per_image(record).values())
    return {
        "cold": seconds["tf_data_loop"] / seconds["ours_cold"],
        "warm": seconds["tf_data_loop"] / seconds["ours_warm"],
        "cold_of_ceiling": ceiling["cold"] / seconds["ours_cold"],
        "warm_of_ceiling": ceiling["warm"] / seconds["ours_warm"],
        "extraction": extraction["ours"]["median"] / extraction["bare"]["median"],
        "flatten_step": step["bounds"]["bandwidth"] / step["seconds"]["median"],
        "cost_per_image": max(costs) / min(costs),
        "scoring_first": record["scoring"]["onnx"]["first_seconds"],
        "scoring_many": _scoring_ratio(record, "seconds"),
        "scoring_memory": _scoring_ratio(record, "peak_mb"),
    }


def _scoring_ratio(record: dict[str, Any], name: str) -> float | None:
    """Return what ONNX Runtime takes over what Keras takes; None where it was not measured."""
    onnx, keras = (record["scoring"][way][name] for way in ("onnx", "keras"))
    return None if onnx is None else onnx / keras


def _seconds_per_image(record: dict[str, Any]) -> dict[int, float]:
    sizes = record["cost_per_image"]["sizes"]
    return {size["images"]: size["seconds"] / size["images"] for size in sizes}


def judge_goals(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Hold every ratio against its goal; where it is missed, name the limit that stands in the way.

    Returns:
        For each ratio: `goal`, `least`, `value`, `met`, and `limit`, a sentence with the number
        of the limit, or None where the goal is met.
    """
    judged, limits = {}, explain_limits(record)
    for name, goal in GOALS.items():
        value = record["ratios"].get(name)
        if value is None:
            continue  # memory, outside Linux, or all of scoring in an older record
        met = value <= goal.value if goal.at_most else value >= goal.value
        judged[name] = {
            "goal": goal.value, "least": goal.least, "at_most": goal.at_most, "value": value,
            "met": met, "limit": None if met else limits[name],
        }  # fmt: skip
    return judged


def explain_limits(record: dict[str, Any]) -> dict[str, str]:
    """Return for each ratio a sentence on what keeps it from being better, by number."""
    ceiling, step, extraction = (record[key] for key in ("ceiling", "step", "extraction"))
    bare, ours = (extraction[name]["median"] for name in ("bare", "ours"))
    seconds, bounds = step["seconds"]["median"], step["bounds"]
    threads = record["machine"]["processors"]
    traffic, arithmetic = (_milliseconds(bounds[name]) for name in ("bandwidth", "compute"))
    costs = _seconds_per_image(record)
    dearest, cheapest = (choose(costs, key=costs.get) for choose in (max, min))
    cold, warm = (record["contenders"][name] for name in ("ours_cold", "ours_warm"))

    def training(contender: dict[str, Any]) -> str:
        return (
            f"training takes {contender['train_seconds']:.0f} s where {ceiling['steps']:.0f} s are "
            f"the bound ({seconds * record['steps']:.0f} s in the steps themselves, "
            f"{_milliseconds(seconds)} each, of which memory traffic accounts for {traffic} and "
            f"arithmetic for {arithmetic}; the rest is compiling, validation, checkpoints and the "
            "saved state)"
        )

    def loop(name: str, paid: str, rest: str) -> str:
        best, goal = record["contenders"]["tf_data_loop"]["seconds"] / ceiling[name], GOALS[name]
        paying = f"paying only {paid}the {traffic} per step that memory traffic takes, the ratio "
        paying += f"would be {best:.1f}"
        if best < goal.value:
            views = record["settings"]["views"]
            return f"no cache of {views} copies can reach {goal.value:g} here: {paying}"
        share = record["ratios"][f"{name}_of_ceiling"]
        return f"{paying}; ours reaches {share:.0%} of that: {rest}"

    whole = {
        "cold": f"filling takes {cold['fill_seconds']:.0f} s where {ceiling['forward']:.0f} s are "
        f"the bound; {training(cold)}",
        "warm": training(warm),
    }
    return {
        "cold": loop("cold", f"{bare:.1f} images/s of the bare forward pass and ", whole["cold"]),
        "warm": loop("warm", "", whole["warm"]),
        "cold_of_ceiling": whole["cold"],
        "warm_of_ceiling": whole["warm"],
        "extraction": f"the bare forward pass keeps all {threads} processors busy at {bare:.1f} "
        "images/s, so that decoding, augmenting, hashing and writing, "
        f"{1000 * threads * (1 / ours - 1 / bare):.0f} ms of processor time per image and copy, "
        "find no free one",
        "flatten_step": f"a step takes {_milliseconds(seconds)}; memory traffic bounds it at "
        f"{traffic} ({step['bandwidth']['best'] / 1e9:.1f} GB/s), but its arithmetic alone takes "
        f"{arithmetic} at this machine's {step['matmul_flops']['best'] / 1e9:.0f} GFLOP/s: one "
        f"after the other they are {sum(bounds.values()) / seconds:.0%} of the step",
        "cost_per_image": f"an image costs {_milliseconds(costs[dearest])} at {dearest:,} and "
        f"{_milliseconds(costs[cheapest])} at {cheapest:,}; of a run "
        f"{record['cost_per_image']['fit']['fixed_seconds']:.1f} s do not depend on the number of "
        "images, and the rest is what the machine's speed varies between two runs",
        # A record of before scoring was measured has none, and no ratio of it is judged.
        **(_explain_scoring(record["scoring"]) if "scoring" in record else {}),
    }


def _explain_scoring(scoring: dict[str, Any]) -> dict[str, str]:
    onnx, keras = scoring["onnx"], scoring["keras"]
    images = scoring["images"]
    each = [_milliseconds((way["seconds"] - way["first_seconds"]) / max(images - 1, 1))
            for way in (onnx, keras)]  # fmt: skip
    start = (
        f"starting, reading and answering one image takes {onnx['first_seconds']:.1f} s where it "
        f"takes Keras {keras['first_seconds']:.1f} s"
    )
    return {
        "scoring_first": f"{start}: most of it is the import of packages",
        "scoring_many": f"{start}; each of {images} images takes {each[0]} more, and {each[1]} in "
        "Keras",
        "scoring_memory": f"{onnx['peak_mb'] or 0:.0f} MB, of Python's packages, the network and a "
        f"batch of images, stand against {keras['peak_mb'] or 0:.0f} MB in Keras",
    }


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


# ---- the cost model: images x copies x forward cost + epochs x cost of the head


def fill_seconds(
    record: dict[str, Any], train: int, validation: int, views: int, processors: int | None = None
) -> float:
    """Return the seconds of all forward passes, shared evenly between processors.

    Their number is by default that of the machine that the record is from.
    """
    passes, of = views * train + validation, record["machine"]["processors"]
    return passes / record["extraction"]["ours"]["median"] * of / (processors or of)


def train_seconds(record: dict[str, Any], train: int, epochs: int) -> float:
    """Return the seconds of all training steps on one machine."""
    step = record["step"]
    return epochs * count_steps(train, step["batch_size"]) * step["seconds"]["median"]


def cache_gigabytes(train: int, validation: int, views: int) -> float:
    """Return the size of the cache: augmented copies in half precision, validation in single."""
    numbers = 2 * views * train + 4 * validation  # bytes for each of the activation's numbers
    return numbers * ACTIVATION_SIZE / 1e9


def summarize_sizes(record: dict[str, Any], sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Set predicted next to measured seconds for each size, and fit fixed and marginal cost.

    `sizes` are records of `run_size`, of one copy each, not augmented.
    """
    epochs = record["settings"]["size_epochs"]
    rows = [
        size
        | {
            "predicted_fill_seconds": fill_seconds(
                record, size["train_images"], size["validation_images"], views=1
            ),
            "predicted_train_seconds": train_seconds(record, size["train_images"], epochs),
        }
        for size in sizes
    ]
    images = np.array([size["images"] for size in sizes], float)
    # Neither can be negative, whatever the machine did between two sizes.
    terms = np.column_stack([images, np.ones(len(sizes))])[:, : len(sizes)]
    slope, *rest = nnls(terms, [size["seconds"] for size in sizes])[0]
    fixed = rest[0] if rest else 0.0
    fit = {"fixed_seconds": float(fixed), "seconds_per_image": float(slope)}
    return {"epochs": epochs, "sizes": rows, "fit": fit}


# ---- tables


Table = tuple[list[str], list[list[str]]]
"""Header and rows."""


def contender_rows(record: dict[str, Any]) -> Table:
    """Return the table of contenders."""
    rows = []
    for name in CONTENDERS:
        contender = record["contenders"][name]
        auc = f"{contender['validation_auc']:.4f}"
        if name == "ours_warm":
            seeds = record["ours_seeds"]["validation_auc"]
            auc = f"{seeds['mean']:.4f} ({seeds['min']:.4f} to {seeds['max']:.4f})"
        rows.append(
            [
                name, f"{contender['seconds_per_epoch']:.1f}",
                f"{contender['seconds']:,.0f}", f"{contender['peak_mb']:,.0f}", auc,
            ]
        )  # fmt: skip
    return [
        "loop", "seconds per epoch", f"seconds, {record['settings']['epochs']} epochs",
        "peak memory, MB", "validation AUC",
    ], rows  # fmt: skip


def goal_rows(record: dict[str, Any]) -> Table:
    """Return the table of goals."""
    rows = []
    for name, goal in record["goals"].items():
        sign = "at most" if goal["at_most"] else "at least"
        least = f" (nowhere below {goal['least']:g})" if goal["least"] else ""
        met = "met" if goal["met"] else "missed"
        rows.append([name, f"{goal['value']:.2f}", f"{sign} {goal['goal']:g}{least}", met])
    return ["ratio", "measured", "goal", ""], rows


def limit_sentences(record: dict[str, Any]) -> list[str]:
    """Return a sentence for each goal that is missed, but none that another one holds."""
    missed = {name: goal["limit"] for name, goal in judge_goals(record).items() if goal["limit"]}
    return [
        f"{name}: {limit}"
        for name, limit in missed.items()
        if not any(limit in longer for other, longer in missed.items() if other != name)
    ]


def size_rows(record: dict[str, Any]) -> Table:
    """Return the table of sizes."""
    rows = [
        [
            f"{row['images']:,}", f"{row['fill_seconds']:.1f}",
            f"{row['predicted_fill_seconds']:.1f}", f"{row['train_seconds']:.1f}",
            f"{row['predicted_train_seconds']:.1f}",
            f"{1000 * row['seconds'] / row['images']:.0f}", f"{row['peak_mb']:,.0f}",
        ]
        for row in record["cost_per_image"]["sizes"]
    ]  # fmt: skip
    return [
        "images", "filling, s", "predicted, s", "training, s", "predicted, s", "ms per image",
        "peak memory, MB",
    ], rows  # fmt: skip


def scoring_rows(record: dict[str, Any]) -> Table:
    """Return the table of `make predict`, start included."""
    scoring, rows = record["scoring"], []
    for way, title in {"onnx": "ONNX Runtime", "keras": "Keras"}.items():
        peak = scoring[way]["peak_mb"]
        rows.append(
            [
                title, f"{scoring[way]['first_seconds']:.2f}", f"{scoring[way]['seconds']:.1f}",
                "–" if peak is None else f"{peak:,.0f}",
            ]
        )  # fmt: skip
    return [
        "make predict on", "one image, s", f"{scoring['images']} images, s", "peak memory, MB",
    ], rows  # fmt: skip


def precision_rows(record: dict[str, Any]) -> Table:
    """Return the table of precisions."""
    precision, rows = record["precision"], []
    for name, rate in precision["images_per_second"].items():
        auc = precision["validation_auc"][name]
        differences = [f"{precision['probability_difference'][of]:.4f}" for of in ("mean", "max")]
        rows.append(
            [
                name, f"{rate['median']:.1f}", "–" if auc is None else f"{auc:.4f}",
                *(["–", "–"] if name == "float32" else differences),
            ]
        )  # fmt: skip
    return [
        "precision of the backbone", "images/s", "validation AUC", "mean difference of probability",
        "largest",
    ], rows  # fmt: skip


def worker_rows(record: dict[str, Any]) -> Table:
    """Return the table of extraction by one process and by several, a row."""
    names = {0: "one process, all cores", 1: "1 worker"}
    header = [
        names.get(each["workers"], f"{each['workers']} workers") for each in record["workers"]
    ]
    rates = [f"{each['images_per_second']:.1f}" for each in record["workers"]]
    return ["images and augmented copies per second", *header], [["ResNet50's features", *rates]]
