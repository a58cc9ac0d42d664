"""Numbers in texts are those of their results, and none goes without a key or a reason."""

import csv
import re

import nbformat
import pytest

from tests.test_notebooks import DEFAULT_STUDY, NAMES, cells_of, read_committed, texts_of
from utils.common.files import write_json
from utils.common.paths import ROOT
from utils.tools.numbers import NUMBER, QUOTED, NumbersError, documents, fill_in, main

CONSTANTS = (
    # Settings of the study, and what they are compared with.
    r"\d+ x \d+", r"\d+ pixels", r"§ at 128, § at 160", r"more than at 160", r"128 instead of 96",
    r"240 chest \*phantoms\*", r"200 bootstrap resamples", r"95% of 1,000 draws", r"out of 255",
    r"\(255 - x\)", r"500 images", r"seed 42, a validation share of 0\.15", r"x 2,048 numbers",
    r"random crops of 8% to 100%", r"threshold \(0\.5\) and goals",
    r"100 labeled normal radiographs",
    r"114 with the label Pneumonia and 181 with No Finding", r"an accuracy at 0\.5 of",
    r"Figure \d+\.\d",
    # Conventions of the field.
    r"95% (confidence )?interval", r"5% level", r"\b[Aa]t 0\.5\b(?! of)",
    r"threshold of 0\.5 for both", r"AUC of 0\.5 would",
    r"fall to 0\.5 without", r"away from 0\.5", r"a probability of 0\.5", r"not near 0\.5",
    r"threshold not 0\.5\?\*\* 0\.5 is optimal", r"0\.5 is chance", r"And 0\.5 has seen no answers",
    r"95 of 100 repetitions", r"ln 2 = 0\.69", r"images given 0\.9",
    r"probability of 0\.9 (as|or more)",
    r"at least 0\.9\b", r"at sensitivity 0\.95",
    r"stayed within 0\.05", r"within 0\.01( of the best|, which)",
    # Names and versions.
    r"Python 3\.11, 3\.12 or 3\.13", r"Python 3\.1\d( and 3\.13| to 3\.13)?", r"GNU make [34]\.\d+",
    r"CC BY 4\.0", r"SHA-256", r"AVX-512", r"Cell 172, 1122-1131",
    # Suppositions, and what follows from them by arithmetic.
    r"[Aa]nswers? within [\d.]+", r"[Aa]t a prevalence of 1%", r"at 5% the same", r"5 of 100 do",
    r"prevalence is 5%", r"with probability 0\.8", r"same number, say 1\.3",
    r"width 0\.2 and height 1",
    r"from (about )?70% to 99\.8%", r"Of 1,000 children", r"the 950 without",
    r"in 3 of 100 sets", r"adds 11 of 100", r"is 1\.8 standard errors", r"that of 7 still 1\.35",
    r"5% lie beyond", r"3 recipes and for 300", r"extends 1\.96 of it", r"64² = 4,096 pairs",
    r"= 784 patches and 614,656 pairs: 150 times", r"3\.5 is the ratio",
    r"standard errors of 0\.006 and 0\.008", r"correlated with 0\.5",
    r"12\.25 that of the areas", r"the 120 orders", r"correlation of 0\.9(: 5 of 120)?",
    r"1,000 images per second",
    r"\(3\.55 million passes\) take 3,550 s", r"head, 0\.2 GB",
    r"0\.2 MB in half", r"0\.4 MB in single",
    # The checks of these exercises compute them from the data of the run.
    r"have reported 0\.913", r"12 of 100 positive", r"2\.6 times as wide",
    # Published by others.
    r"16 of the 5,232 published", r"accuracies above 0\.95 that", r"4,708 / 524 / 624 images",
    # Counted on the files of the archive; `test_download` counts them again where it is there.
    r"1,341 \| 8", r"bacterial \| 2,530", r"viral \| 1,345", r"3,875 \| 8", r"etiology \| 3,654 \|",
    r"2,846 \| 427 \| 170", r"both etiologies \| 808", r"\b808 numbers", r"share 170 children",
    r"narrow \| 3,114", r"wide \| 2,421 \| 425 \| 427", r"74\.3%( \|| PNEUMONIA in train)",
    r"\(384-2,916 by 127-2,713 pixels\)", r"\(143 normal images", r"1-111 and 7-381",
    r"115 and 383\)", r"295 radiographs of adults", r"104 MB of downloads",
    # Measured once, and kept nowhere else.
    r"ROC-AUC of 0\.941 and an accuracy at 0\.5 of 0\.776, and VGG19 0\.920 and 0\.827",
    r"by 0\.015 to 0\.029 on average and by 0\.24 to 0\.56 at most",
    r"by 0\.007 and 0\.12, with a validation ROC-AUC of 0\.998 both times",
    r"took 0\.3 to 0\.5 GB and fit; 06 took 3\.3 GB", r"took most, 3\.3 GB",
    r"took 0\.25 GB with the shipped", r"1\.1 GB with the same",
)  # fmt: skip
"""Numbers that no result holds, each with the words around it: patterns for text on one line."""

HIDDEN = re.compile(
    r"^```.*?^```|<!-- ([\w-]+):begin -->.*?<!-- \1:end -->|<!--.*?-->|`[^`]*`|\$[^$\n]+\$"
    r"|!?\[[^\]]*\]\([^)]*\)|https?://\S+|^#+ [^\n]*$",
    re.MULTILINE | re.DOTALL,
)
"""Code, generated blocks, comments, formulas, links and headings."""
KEYED, YEAR = "§", r"(19|20)\d\d"

COMPLETE = [
    file for file in documents()
    # registered as they are
    if file.name not in ("selection_rule.md", "round_two.md", "phantoms.md")
    and DEFAULT_STUDY.get(file.stem, "full") == "full"
]  # fmt: skip
"""Not the notebooks, and their solutions, that show the sample: they quote the outputs above."""


def read_prose(file):
    """Read a document, or the Markdown cells of a notebook."""
    if file.suffix == ".md":
        return file.read_text(encoding="utf-8")
    cells = nbformat.read(file, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def visible(text):
    """Return what is left to check: without keyed numbers and hidden parts, on one line."""
    return " ".join(HIDDEN.sub(" ", QUOTED.sub(KEYED, text)).split())


def find_without_key(text):
    """Return the numbers that look like results, with the words around them."""
    text = re.sub("|".join(f"(?:{each})" for each in CONSTANTS), "", visible(text))
    found = []
    for match in re.finditer(rf"{NUMBER}(?: ?%)?", text):
        whole = match[0].lstrip("+-").replace(",", "")
        if not whole.isdigit() or (int(whole) > 99 and not re.fullmatch(YEAR, match[0])):
            found.append(text[max(0, match.start() - 40) : match.end() + 30])
    return found


def test_every_number_is_that_of_its_result(caplog):
    assert main(["--check"]) == 0, caplog.text


@pytest.mark.parametrize("file", COMPLETE, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_number_goes_without_its_key(file):
    assert find_without_key(read_prose(file)) == []


def test_no_constant_is_left_over():
    text = "\n".join(visible(read_prose(file)) for file in COMPLETE)
    assert [each for each in CONSTANTS if not re.search(each, text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "an AUC of 0.974 on it", "by 0.5, or", "it misses 36% of them", "6 % of them",
        "320 of the images", "4,405 images", "at -0.43", "from 100-120", "in 2018, 2,018 images",
        "0.9<!--a/b/c--> [0.8, 0.9]", "| 0.974 |",
    ],
)  # fmt: skip
def test_a_number_without_a_key_is_found(text):
    assert find_without_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "0.97<!--a/b/c--> and 0.9 [0.8, 1.0]<!--a/b/c-->", "in 2018, three of 12",
        "`0.97` and $0.5$", "```\n0.97\n```", "[0.97](page-0.5.md)", "TensorFlow 2.21.0",
        "<!-- a:begin -->\n0.97\n<!-- a:end -->", "ResNet101", "lite0_128", "# Is it 0.97?",
        "a 95%\nconfidence interval",
    ],
)  # fmt: skip
def test_other_numbers_need_none(text):
    assert find_without_key(text) == []


# ---- keys


@pytest.fixture
def results(tmp_path):
    """Write results with a table, a table of numbers, and a record; return their folder."""
    folder = tmp_path / "results" / "full"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "09_scores.csv").write_text(
        ",ROC-AUC,images,seeds,sixteen\n"
        '"a, all","0.974 [0.962, 0.984]",624,0.9 (0.8-1.0),0.8 to 1.0\n'
        "b,–,304,-0.004,none\n"
    )
    (folder / "costs.csv").write_text("name,size,low\na,64,0.45\na,96,0.55\nb,64,0.7\n")
    interval = {"value": 0.81, "low": 0.75, "high": 0.9}
    write_json(folder / "metrics.json", {"test": {"at_0.5": interval}, "list": [7, 8], "n": 2e-5})
    write_json(folder.parent / "bench" / "full.json", {"seconds": 2.5})
    return folder


RIGHT = [
    ("0.97", "09_scores/a, all/ROC-AUC"), ("0.974 [0.962, 0.984]", "09_scores/a, all/ROC-AUC"),
    ("0.962", "09_scores/a, all/ROC-AUC/low"), ("0.98", "09_scores/a, all/ROC-AUC/high"),
    ("0.8", "09_scores/a, all/seeds/low"), ("1.0", "09_scores/a, all/seeds/high"),
    ("0.8", "09_scores/a, all/sixteen/low"), ("1.0", "09_scores/a, all/sixteen/high"),
    ("64", "costs.csv/b/size"), ("0.55", "costs.csv/a/96/low"), ("0.5", "costs.csv/a/size=64/low"),
    ("0.81 [0.75, 0.90]", "metrics.json/test/at_0.5"), ("0.75", "metrics.json/test/at_0.5/low"),
    ("8", "metrics.json/list/1"), ("2.5", "bench/full.json/seconds"), ("0.00", "09_scores/b/seeds"),
    ("+0.97", "09_scores/a, all/ROC-AUC"), ("-0.004", "09_scores/b/seeds"),
    ("97%", "09_scores/a, all/ROC-AUC"), ("2.6%", "1 - 09_scores/a, all/ROC-AUC"),
    ("320", "09_scores/a, all/images - 09_scores/b/images"),
    ("62.4", "09_scores/a, all/images / 10"),
    ("1,248", "09_scores/a, all/images + 624"), ("0.00002", "metrics.json/n"),
]  # fmt: skip
"""A number, and its key."""


@pytest.mark.parametrize(("number", "key"), RIGHT)
def test_a_number_is_filled_in_from_its_key(results, number, key):
    right = f"has {number}<!--{key}--> of 0.5"
    assert fill_in(right, results) == (right, [])
    wrong = re.sub(r"\d", lambda digit: str(9 - int(digit[0])), number)
    filled, changed = fill_in(f"has {wrong}<!--{key}--> of 0.5", results)
    assert filled == right and len(changed) == 1 and wrong in changed[0] and key in changed[0]


def test_points_are_hundredths(results):
    difference = "<!--metrics.json/test/at_0.5/high - metrics.json/test/at_0.5-->"
    for text in (f"9.0{difference} points", f"9{difference} percentage points"):
        assert fill_in(text, results) == (text, [])
    assert fill_in(f"0.09{difference} pointers", results)[1] == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1<!--10_scores/a/b-->", "10_scores.csv"),
        ("1<!--09_scores/c/images-->", "'c' is none of a, all, b"),
        ("1<!--09_scores/b/pictures-->", "'pictures' is none of the columns"),
        ("1<!--09_scores/b/ROC-AUC-->", "has no number"),
        ("1<!--09_scores/b/images/low-->", "has no low"),
        ("1 [1, 1]<!--09_scores/b/images-->", "has an interval"),
        ("1<!--costs.csv/a/size-->", "2 rows are meant"),
        ("1<!--costs.csv/a/width=1/size-->", "'width'"),
        ("1<!--metrics.json/best-->", "'best'"),
        ("1<!--metrics.json/test-->", "it holds 1 values"),
        ("1<!--metrics.json/list/2-->", "list/2"),
        ("1<!--none.json/a-->", "none.json"),
        ("1 - <!--09_scores/b/images-->", "behind no number"),
        ("one<!--09_scores/b/images-->", "behind no number"),
    ],
)
def test_a_key_that_names_no_result_is_an_error(results, text, complaint):
    with pytest.raises(NumbersError, match=re.escape(complaint)):
        fill_in(text, results)


def test_the_command_fills_in_or_complains(results, tmp_path, caplog):
    page, notebook = tmp_path / "README.md", tmp_path / "notebooks" / "01_a.ipynb"
    notebook.parent.mkdir()
    notebook.write_text('["\\"0.1<!--costs.csv/b/low-->\\"\\n"]')
    page.write_text("0.1<!--costs.csv/a/96/low-->\n")
    arguments = ["--root", str(tmp_path)]
    assert main([*arguments, "--check"]) == 1
    assert "README.md: 0.1 (costs.csv/a/96/low) is 0.6 in the results" in caplog.text
    assert page.read_text().startswith("0.1<")
    assert main(arguments) == 0 == main([*arguments, "--check"])
    assert page.read_text() == "0.6<!--costs.csv/a/96/low-->\n"
    assert notebook.read_text() == '["\\"0.7<!--costs.csv/b/low-->\\"\\n"]'
    page.write_text("0.1<!--costs.csv/c/low-->")
    assert main(arguments) == 1
    assert "README.md: the key 'costs.csv/c/low' names no result" in caplog.text


# ---- tables


def kept_tables(way):
    """Return the committed tables that notebooks show, or write for a figure, with the notebook."""
    found = []
    for name in NAMES:
        code = "\n".join(cell.source for cell in cells_of(read_committed(name), "code"))
        for called in re.findall(rf'\b{way}_table\(.+, study, f?"([^"]+)"', code):
            assert called.startswith(f"{name[:2]}_")
            files = sorted(TABLES.glob(f"{re.sub('{.+}', '*', called)}.csv"))
            assert files, f"{name} keeps a table {called} that is not committed"
            found += [(name, file) for file in files]
    return found


TABLES = ROOT / "results" / "full" / "tables"
SHOWN = kept_tables("show")


def stands_in(lines, rows):
    """Tell whether rows of cells stand in printed lines, one after the other.

    A first cell that repeats the one above may be left out, as pandas does.
    """
    texts = []
    for above, row in zip([[None], *rows], rows, strict=False):
        whole, rest = (" ".join(" ".join(row[first:]).split()) for first in (0, 1))
        texts.append({whole, rest} if row[0] == above[0] else {whole})
    return any(
        all(line in text for line, text in zip(lines[start:], texts, strict=False))
        for start in range(len(lines) - len(texts) + 1)
    )


def read_rows(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


@pytest.mark.parametrize(("name", "file"), SHOWN, ids=lambda value: getattr(value, "stem", ""))
def test_a_shown_table_stands_in_its_notebook(name, file):
    texts = [text for cell in cells_of(read_committed(name), "code") for text in texts_of(cell)]
    lines = [" ".join(line.split()) for line in "\n".join(texts).splitlines()]
    rows = read_rows(file)
    assert rows and stands_in(lines, rows)
    last = rows[-1][-1]
    rows[-1][-1] = last[:-1] + ("1" if last[-1] == "0" else "0")
    assert not stands_in(lines, rows)


def test_every_committed_table_is_kept_by_a_notebook():
    kept = [file for _, file in [*SHOWN, *kept_tables("write")]]
    assert sorted(kept) == sorted(TABLES.iterdir())
