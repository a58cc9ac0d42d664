"""What follows from the measurements of `make bench`: ceilings, ratios, goals and the cost model.

Pure functions of the record that `utils.benchmark.run` writes; nothing here measures.
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
ACTIVATION_BYTES = {"float16": 2, "float32": 4}
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

    def is_met(self, ratio: float) -> bool:
        """Say whether a measured ratio reaches the goal."""
        return ratio <= self.value if self.at_most else ratio >= self.value


GOALS = {
    "cold": Goal(5, least=4),
    "warm": Goal(15, least=12),
    "cold_of_ceiling": Goal(0.8),
    "warm_of_ceiling": Goal(0.8),
    "extraction": Goal(0.9),
    "flatten_step": Goal(0.5),
    "cost_per_image": Goal(1.1, at_most=True),
}


def count_steps(images: int, batch_size: int) -> int:
    """Return the training steps of an epoch."""
    return -(-images // batch_size)


def step_bounds(
    parameters: int, batch_size: int, bytes_per_second: float, flops: float
) -> dict[str, float]:
    """Return the seconds that a training step of the head cannot go below.

    Args:
        parameters: Of the head, nearly all of them in its first layer.
        batch_size: Images a step.
        bytes_per_second: Memory bandwidth.
        flops: Floating-point operations a second of a matrix product.

    Returns:
        `bandwidth`: the time of `WEIGHT_PASSES` passes over the float32 weights; `compute`: that
        of one matrix product forward and one backward (the first layer needs no gradient of its
        input), a multiplication and an addition for each weight and image.
    """
    return {
        "bandwidth": WEIGHT_PASSES * BYTES_PER_WEIGHT * parameters / bytes_per_second,
        "compute": 2 * 2 * batch_size * parameters / flops,
    }


def ceiling_seconds(
    train: int,
    validation: int,
    views: int,
    epochs: int,
    batch_size: int,
    images_per_second: float,
    step_bound: float,
) -> dict[str, float]:
    """Return the seconds below which no cache of augmented views can train.

    Args:
        train: Training images.
        validation: Validation images.
        views: Augmented views of each training image.
        epochs: Epochs of the training.
        batch_size: Images a step.
        images_per_second: The bare forward rate.
        step_bound: Bandwidth bound of a step, in seconds.

    Returns:
        `cold`, from an empty cache, and `warm`, from a full one; `forward` and `steps` are the
        two parts of `cold`.
    """
    forward = (views * train + validation) / images_per_second
    steps = epochs * count_steps(train, batch_size) * step_bound
    return {"forward": forward, "steps": steps, "cold": forward + steps, "warm": steps}


def compute_ratios(
    contenders: dict[str, dict[str, Any]],
    ceiling: dict[str, float],
    extraction: dict[str, Any],
    step_seconds: float,
    step_bound: float,
    sizes: Sequence[dict[str, Any]],
) -> dict[str, float]:
    """Return the ratios of the record, by the names of `GOALS`.

    Args:
        contenders: For each contender a record with `seconds`.
        ceiling: From `ceiling_seconds`.
        extraction: Rates of `ours` and `bare`, each with its `median`.
        step_seconds: Measured seconds of a step.
        step_bound: Its bandwidth bound.
        sizes: Records of `run_size`.
    """
    other = contenders["tf_data_loop"]["seconds"]
    cold, warm = (contenders[name]["seconds"] for name in ("ours_cold", "ours_warm"))
    costs = [size["seconds"] / size["images"] for size in sizes]
    return {
        "cold": other / cold,
        "warm": other / warm,
        "cold_of_ceiling": ceiling["cold"] / cold,
        "warm_of_ceiling": ceiling["warm"] / warm,
        "extraction": extraction["ours"]["median"] / extraction["bare"]["median"],
        "flatten_step": step_bound / step_seconds,
        "cost_per_image": max(costs) / min(costs),
    }


def judge_goals(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Hold every ratio against its goal; where it is missed, name the limit that stands in the way.

    Args:
        record: The benchmark's record with all but `goals`.

    Returns:
        For each ratio: `goal`, `least`, `value`, `met`, and `limit`, a sentence with the number
        of the limit, or None where the goal is met.
    """
    judged = {}
    for name, goal in GOALS.items():
        value = record["ratios"][name]
        met = goal.is_met(value)
        judged[name] = {
            "goal": goal.value,
            "least": goal.least,
            "at_most": goal.at_most,
            "value": value,
            "met": met,
            "limit": None if met else _LIMITS[name](record),
        }
    return judged


def _limit_of_loop(record: dict[str, Any], name: str) -> str:
    """Say how far a cache could get, and where ours lies below that."""
    ceiling = record["ceiling"]
    best = record["contenders"]["tf_data_loop"]["seconds"] / ceiling[name]
    goal = GOALS[name].value
    rate = record["extraction"]["bare"]["median"]
    bound = record["step"]["bounds"]["bandwidth"]
    paid = f"the {_milliseconds(bound)} a step that memory traffic takes"
    if name == "cold":
        paid = f"{rate:.1f} images/s of the bare forward pass and {paid}"
    if best < goal:
        return (
            f"no cache of {record['settings']['views']} views can reach {goal:g} here: paying "
            f"only {paid}, the ratio would be {best:.1f}"
        )
    share = record["ratios"][f"{name}_of_ceiling"]
    return (
        f"paying only {paid}, the ratio would be {best:.1f}; ours reaches {share:.0%} of that: "
        f"{_limit_of_ceiling(record, name)}"
    )


def _limit_of_ceiling(record: dict[str, Any], name: str) -> str:
    """Say where the seconds above the ceiling go."""
    ours, ceiling, step = record["contenders"][f"ours_{name}"], record["ceiling"], record["step"]
    steps = ours["train_seconds"]
    measured = step["seconds"]["median"] * record["steps"]
    bounds = step["bounds"]
    parts = [
        f"training takes {steps:.0f} s where {ceiling['steps']:.0f} s are the bound "
        f"({measured:.0f} s in the steps themselves, {_milliseconds(step['seconds']['median'])} "
        f"each, of which memory traffic accounts for {_milliseconds(bounds['bandwidth'])} and "
        f"arithmetic for {_milliseconds(bounds['compute'])}; the rest is compiling, validation, "
        "checkpoints and the kept state)"
    ]
    if name == "cold":
        parts.insert(
            0,
            f"filling takes {ours['fill_seconds']:.0f} s where {ceiling['forward']:.0f} s are the "
            "bound",
        )
    return "; ".join(parts)


def _limit_of_extraction(record: dict[str, Any]) -> str:
    rates = record["extraction"]
    bare, ours = rates["bare"]["median"], rates["ours"]["median"]
    threads = record["machine"]["processors"]
    lost = 1000 * threads * (1 / ours - 1 / bare)
    return (
        f"the bare forward pass keeps all {threads} processors busy at {bare:.1f} images/s, so "
        f"that decoding, augmenting, hashing and writing, {lost:.0f} ms of processor time an "
        "image and view, find no free one"
    )


def _limit_of_step(record: dict[str, Any]) -> str:
    step = record["step"]
    bounds, seconds = step["bounds"], step["seconds"]["median"]
    together = bounds["bandwidth"] + bounds["compute"]
    return (
        f"a step takes {_milliseconds(seconds)}; memory traffic bounds it at "
        f"{_milliseconds(bounds['bandwidth'])} ({step['bandwidth']['best'] / 1e9:.1f} GB/s), but "
        f"its arithmetic alone takes {_milliseconds(bounds['compute'])} at this machine's "
        f"{step['matmul_flops']['best'] / 1e9:.0f} GFLOP/s: one after the other they are "
        f"{together / seconds:.0%} of the step"
    )


def _limit_of_cost(record: dict[str, Any]) -> str:
    fit = record["cost_per_image"]["fit"]
    per_image = {
        size["images"]: size["seconds"] / size["images"]
        for size in record["cost_per_image"]["sizes"]
    }
    dearest, cheapest = (choose(per_image, key=per_image.get) for choose in (max, min))
    return (
        f"an image costs {1000 * per_image[dearest]:.0f} ms at {dearest:,} and "
        f"{1000 * per_image[cheapest]:.0f} ms at {cheapest:,}; of a run "
        f"{fit['fixed_seconds']:.1f} s do not depend on the number of images, and the rest is what "
        "the machine's speed varies between two runs"
    )


_LIMITS = {
    "cold": lambda record: _limit_of_loop(record, "cold"),
    "warm": lambda record: _limit_of_loop(record, "warm"),
    "cold_of_ceiling": lambda record: _limit_of_ceiling(record, "cold"),
    "warm_of_ceiling": lambda record: _limit_of_ceiling(record, "warm"),
    "extraction": _limit_of_extraction,
    "flatten_step": _limit_of_step,
    "cost_per_image": _limit_of_cost,
}


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


@dataclass(frozen=True)
class CostModel:
    """images x views x forward cost + epochs x tail cost, with the constants of one machine."""

    images_per_second: float
    """Of filling the cache."""
    step_seconds: float
    """Of the head's training step."""
    processors: int
    """Of the machine that the constants come from."""
    batch_size: int = 32
    activation_shape: tuple[int, ...] = (7, 7, 2048)

    def fill_seconds(
        self, train: int, validation: int, views: int, processors: int | None = None
    ) -> float:
        """Return the seconds of all forward passes, shared evenly between processors."""
        share = self.processors / (processors or self.processors)
        return (views * train + validation) / self.images_per_second * share

    def train_seconds(self, train: int, epochs: int) -> float:
        """Return the seconds of all training steps on one machine."""
        return epochs * count_steps(train, self.batch_size) * self.step_seconds

    def gigabytes(self, train: int, validation: int, views: int) -> float:
        """Return the size of the cache: views in half precision, validation in single."""
        row = int(np.prod(self.activation_shape))
        return (
            row
            * (views * train * ACTIVATION_BYTES["float16"]
               + validation * ACTIVATION_BYTES["float32"])
            / 1e9
        )  # fmt: skip


def cost_model(record: dict[str, Any]) -> CostModel:
    """Return the cost model with the constants of a benchmark's record."""
    return CostModel(
        images_per_second=record["extraction"]["ours"]["median"],
        step_seconds=record["step"]["seconds"]["median"],
        processors=record["machine"]["processors"],
        batch_size=record["step"]["batch_size"],
    )


def summarise_sizes(
    sizes: Sequence[dict[str, Any]], model: CostModel, epochs: int
) -> dict[str, Any]:
    """Set predicted beside measured seconds for each size, and fit fixed and marginal cost.

    Args:
        sizes: Records of `run_size`, one plain view each.
        model: The cost model.
        epochs: Epochs that each was trained.
    """
    rows = []
    for size in sizes:
        train, validation = size["train_images"], size["validation_images"]
        rows.append(
            size
            | {
                "predicted_fill_seconds": model.fill_seconds(train, validation, 1),
                "predicted_train_seconds": model.train_seconds(train, epochs),
                "fill_seconds_per_image": size["fill_seconds"] / size["images"],
                "train_seconds_per_image": size["train_seconds"] / size["images"],
            }
        )
    images = np.array([row["images"] for row in rows], float)
    # Neither can be negative, whatever the machine did between two sizes.
    terms = np.column_stack([images, np.ones(len(rows))])[:, : len(rows)]
    slope, *rest = nnls(terms, [row["seconds"] for row in rows])[0]
    fixed = rest[0] if rest else 0.0
    memory = [row["peak_mb"] for row in rows]
    return {
        "epochs": epochs,
        "sizes": rows,
        "fit": {"fixed_seconds": float(fixed), "seconds_per_image": float(slope)},
        "memory_ratio": max(memory) / min(memory),
    }


# ---- text


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as aligned text, the first column to the left, the others to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def contender_rows(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of contenders."""
    epochs = record["settings"]["epochs"]
    header = [
        "loop", "seconds an epoch", f"seconds, {epochs} epochs", "peak memory, MB",
        "validation AUC",
    ]  # fmt: skip
    rows = []
    for name in CONTENDERS:
        contender = record["contenders"][name]
        seconds = f"{contender['seconds']:,.0f}" + (
            " (extrapolated)" if contender["extrapolated"] else ""
        )
        auc = f"{contender['validation_auc']:.4f}"
        if name == "ours_warm":
            seeds = record["ours_seeds"]["validation_auc"]
            auc = f"{seeds['mean']:.4f} ({seeds['min']:.4f} to {seeds['max']:.4f})"
        rows.append(
            [
                name, f"{contender['seconds_per_epoch']:.1f}", seconds,
                f"{contender['peak_mb']:,.0f}", auc,
            ]
        )  # fmt: skip
    return header, rows


def goal_rows(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of goals."""
    rows = []
    for name, goal in record["goals"].items():
        least = f" (nowhere below {goal['least']:g})" if goal["least"] else ""
        sign = "at most" if goal["at_most"] else "at least"
        rows.append(
            [
                name, f"{goal['value']:.2f}", f"{sign} {goal['goal']:g}{least}",
                "met" if goal["met"] else "missed",
            ]
        )  # fmt: skip
    return ["ratio", "measured", "goal", ""], rows


def limit_sentences(record: dict[str, Any]) -> list[str]:
    """Return a sentence for each goal that is missed, but none that another one holds."""
    missed = {name: goal["limit"] for name, goal in record["goals"].items() if goal["limit"]}
    return [
        f"{name}: {limit}"
        for name, limit in missed.items()
        if not any(limit in longer for other, longer in missed.items() if other != name)
    ]


def size_rows(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of sizes."""
    return [
        "images", "filling, s", "predicted, s", "training, s", "predicted, s", "ms an image",
        "peak memory, MB",
    ], [
        [
            f"{row['images']:,}", f"{row['fill_seconds']:.1f}",
            f"{row['predicted_fill_seconds']:.1f}", f"{row['train_seconds']:.1f}",
            f"{row['predicted_train_seconds']:.1f}",
            f"{1000 * row['seconds'] / row['images']:.0f}", f"{row['peak_mb']:,.0f}",
        ]
        for row in record["cost_per_image"]["sizes"]
    ]  # fmt: skip


def precision_rows(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of precisions."""
    precision = record["precision"]
    difference = precision["probability_difference"]
    rows = []
    for name, rate in precision["images_per_second"].items():
        auc = precision["validation_auc"][name]
        lower = name != "float32"
        rows.append(
            [
                name, f"{rate['median']:.1f}", "–" if auc is None else f"{auc:.4f}",
                f"{difference['mean']:.4f}" if lower else "–",
                f"{difference['max']:.4f}" if lower else "–",
            ]
        )  # fmt: skip
    return [
        "precision of the trunk",
        "images/s",
        "validation AUC",
        "mean difference of probability",
        "largest",
    ], rows
