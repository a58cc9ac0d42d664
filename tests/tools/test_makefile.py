"""The Makefile, run for real in a small copy of the tree with a Python that only takes notes."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.small_notebooks import code_cell, write_notebook
from utils.common.paths import ROOT

NOTEBOOKS = {
    "01_data_exploration": "plots",
    "02_augmentation": "plots",
    "03_vgg19_baseline": "training",
    "04_resnet50_training": "training",
    "05_evaluation": "evaluation",
    "06_grad_cam": "explanation",
    "07_fine_tuning": "screening",
    "08_architectures": "costs",
    "09_outside_validation": "final_models",
    "10_operating_point": "comparison",
    "11_shortcuts": "leakage",
    "12_trusting_heat_maps": "explanation_study",
}
"""Each notebook with the one module of the small copy that it imports."""
ALL = [name[:2] for name in NOTEBOOKS]
SOLVED = "01_data_exploration"
"""The one notebook of the small copy with exercises and solutions."""
SOLVED_SUBJECT = SOLVED[3:]
INSTALL = "-m pip install -qq --disable-pip-version-check --no-deps"
LOCKED = f"{INSTALL} --require-hashes --requirement"
INSTALL_STUDY = [
    f"{LOCKED} requirements.lock", f"{INSTALL} --no-build-isolation --editable .",
]  # fmt: skip
LOCKS = ("requirements", "requirements-dev", "requirements-gpu")
INSTALL_CHECKS = [f"{LOCKED} requirements-dev.lock"]
QUIET = "-m utils.tools.quiet"
"""How a command is run whose log of TensorFlow stays off the terminal."""
FINDINGS = "-m utils.tools.findings --study"
"""What `make all` does last."""

RECORDING_PYTHON = """#!/bin/sh
# Stands in for .venv/bin/python: notes what it is asked, and fails where $FAIL says so.
echo "$@" >> calls.log
case "$*" in
    *utils.tools.execute*--output*)
        for output; do :; done
        if [ -n "$SLOWLY" ]; then sleep "$SLOWLY"; echo "end $output" >> calls.log; fi
        mkdir -p "$(dirname "$output")" && echo executed > "$output" ;;
    *--nbval*)
        echo "$RESULTS_DIR" >> calls.log; ls "$RESULTS_DIR" >> calls.log
        echo "${SHOWN:-0.97}" > "$RESULTS_DIR/full/tables/09_scores.csv" ;;
    *activation_cache*fill*)
        echo "$WORKERS $SCHEDULER" >> calls.log ;;
esac
case "$*" in *"${FAIL:-nothing fails}"*) exit 1 ;; esac
"""


class Tree:
    """A small copy of the repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("Makefile", "pyproject.toml", *(f"{lock}.lock" for lock in LOCKS)):
            shutil.copy(ROOT / name, root / name)
        shutil.copytree(ROOT / "studies", root / "studies")
        for folder in ("utils/tools", "exercises/solutions", "demo", "tests"):
            (root / folder).mkdir(parents=True)
        for name in ("__init__.py", "tools/__init__.py", "tools/dependencies.py"):
            shutil.copy(ROOT / "utils" / name, root / "utils" / name)
        for module in set(NOTEBOOKS.values()):
            (root / "utils" / f"{module}.py").write_text("from utils import files\n")
        (root / "utils" / "files.py").write_text("")
        for name, module in NOTEBOOKS.items():
            source = f"from utils.{module} import something"
            if name == SOLVED:
                source += f"\nfrom exercises import {SOLVED_SUBJECT} as exercises"
                (root / "exercises" / f"{SOLVED_SUBJECT}.py").write_text("")
                (root / "exercises" / "solutions" / f"{name}.md").write_text("")
            write_notebook(root / "notebooks" / f"{name}.ipynb", code_cell(source))
        for name, text in ("histories/vgg19", ""), ("tables/09_scores", "0.97\n"):
            published = root / "results" / "full" / f"{name}.csv"
            published.parent.mkdir(parents=True)
            published.write_text(text)
        python = root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(RECORDING_PYTHON)
        python.chmod(0o755)
        (root / ".venv" / ".installed").touch()
        (root / ".venv" / ".installed-checks").touch()

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Run make with these arguments and environment variables."""
        settings = (
            "STUDY",
            "VENV",
            "DATA_DIR",
            "RESULTS_DIR",
            "FIGURES_DIR",
            "MAKEFLAGS",
            "MAKELEVEL",
            "VERBOSE",
            "GPU",
        )
        environment = {key: value for key, value in os.environ.items() if key not in settings}
        # No uv and one notebook at a time, whatever this machine has.
        environment |= {"UV": "", "JOBS": "1"}
        environment |= {"PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= variables
        return subprocess.run(
            ["make", *arguments], cwd=self.root, env=environment, capture_output=True, text=True
        )

    def calls(self) -> list[str]:
        """Return and forget what the environment's Python was asked to do."""
        log = self.root / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def executed(self) -> list[str]:
        """Return and forget the numbers of the notebooks that were executed, in order."""
        return [
            call.split("notebooks/")[1][:2]
            for call in self.calls()
            if "utils.tools.execute" in call
        ]

    def edit(self, path: str) -> None:
        """Give a file a newer time than everything before."""
        time.sleep(0.02)
        (self.root / path).touch()


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "my study"  # students keep things in folders with spaces
    root.mkdir()
    return Tree(root)


def test_all_runs_in_order_whatever_the_jobs_and_then_nothing(tree):
    first = tree.make("all", "-j4")
    assert first.returncode == 0, first.stderr
    assert tree.executed() == ALL
    second = tree.make("all")
    assert tree.executed() == []
    assert "Study 'sample' is up to date" in second.stdout


def overlapping(calls: list[str]) -> list[set[str]]:
    """Return for each beginning of a notebook the numbers of those that run then."""
    running, moments = set(), []
    for call in calls:
        number = call.split("notebooks/")[-1][:2]
        if call.startswith("end "):
            running.remove(number)
        elif "utils.tools.execute" in call:
            running.add(number)
            moments.append(set(running))
    return moments


BUILDS_ON = {
    "05": "03 04", "06": "04", "07": "04", "08": "07", "09": "05 08",
    **dict.fromkeys(["10", "11", "12"], "09"),
}  # fmt: skip


@pytest.mark.slow
def test_notebooks_that_do_not_build_on_each_other_run_side_by_side(tree):
    assert tree.make("all", JOBS="2", SLOWLY="0.3").returncode == 0
    calls = tree.calls()
    moments = overlapping(calls)
    assert max(map(len, moments)) == 2
    assert {"01", "02"} in moments
    order = [("end " if call[:4] == "end " else "") + call.split("notebooks/")[-1][:2]
             for call in calls if "notebooks/" in call]  # fmt: skip
    assert sorted(order) == sorted([*ALL, *(f"end {number}" for number in ALL)])
    for number, inputs in BUILDS_ON.items():
        for needed in inputs.split():
            assert order.index(f"end {needed}") < order.index(number), f"{number} before {needed}"


def test_the_sample_alone_runs_two_at_a_time_and_jobs_decides(tree):
    def jobs(*arguments: str, **variables: str) -> str:
        shown = tree.make("-n", "all", *arguments, **variables).stdout
        return re.search(r"--jobs=(\S*) executed", shown)[1]

    assert jobs("STUDY=full", JOBS="") == "1"
    assert jobs(JOBS="") in ("1", "2")
    assert jobs(JOBS="3") == "3"
    # Where there is one core, whatever the rest.
    getconf = tree.root / "bin" / "getconf"
    getconf.parent.mkdir()
    getconf.write_text("#!/bin/sh\necho 1\n")
    getconf.chmod(0o755)
    path = f"{getconf.parent}{os.pathsep}{os.environ['PATH']}"
    assert jobs(JOBS="", PATH=path) == "1"


@pytest.mark.parametrize(
    ("edited", "again"),
    [
        ("notebooks/05_evaluation.ipynb", ["05", "09", "10", "11", "12"]),
        ("notebooks/02_augmentation.ipynb", ["02"]),
        ("notebooks/04_resnet50_training.ipynb", ALL[3:]),
        ("utils/explanation.py", ["06"]),
        ("utils/training.py", ALL[2:]),
        ("exercises/data_exploration.py", ["01"]),
        ("exercises/solutions/01_data_exploration.md", []),
        ("utils/files.py", ALL),
        ("studies/sample.yaml", ALL),
        ("results/full/histories/vgg19.csv", ["03", "05", *ALL[8:]]),
        ("studies/full.yaml", []),
        ("README.md", []),
    ],
)
def test_an_edit_runs_what_needs_it_and_no_more(tree, edited, again):
    tree.make("all")
    tree.calls()
    tree.edit(edited)
    tree.make("all")
    assert tree.executed() == again


def test_switching_solutions_on_or_off_runs_the_notebooks_again(tree):
    tree.make("all")
    assert not any("--solutions" in call for call in tree.calls())
    tree.make("all", "SOLUTIONS=1")
    *calls, _ = tree.calls()
    assert len(calls) == len(NOTEBOOKS)
    assert all(" --solutions " in call for call in calls)
    tree.make("all", "SOLUTIONS=yes")  # on is on, whatever the word
    assert tree.executed() == []
    tree.edit(f"exercises/solutions/{SOLVED}.md")
    tree.make("all", "SOLUTIONS=1")
    assert tree.executed() == [SOLVED[:2]]
    tree.make("all")
    assert tree.executed() == ALL
    tree.make("all")
    assert tree.executed() == []


def test_solutions_of_one_study_leave_the_other_alone(tree):
    (tree.root / "data" / "chest_xray" / "train").mkdir(parents=True)
    tree.make("all")
    tree.make("all", "STUDY=sample", "SOLUTIONS=1")
    tree.calls()
    tree.make("all")
    assert tree.executed() == []


def test_a_new_import_becomes_a_dependency(tree):
    tree.make("all")
    tree.calls()
    tree.edit("utils/explanation.py")
    (tree.root / "utils" / "plots.py").write_text("import utils.explanation\n")
    tree.make("all")
    assert tree.executed() == ["01", "02", "06"]
    tree.edit("utils/explanation.py")
    tree.make("all")
    assert tree.executed() == ["01", "02", "06"]


def test_a_module_two_packages_away_runs_the_notebooks_that_use_it(tree):
    code = {
        "far/away": "",
        "between/way": "from utils.far.away import x",
        "between/other_way": "from utils.far import away",
        "between/unused": "import utils.far.away",
        "plots": "from utils import files\nfrom utils.between.way import x",
        "explanation": "from utils import files\nfrom utils.between import other_way as way",
    }
    for name, text in code.items():
        file = tree.root / "utils" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    tree.make("all")
    tree.calls()
    tree.edit("utils/far/away.py")
    tree.make("all")
    assert tree.executed() == ["01", "02", "06"]
    tree.edit("utils/between/way.py")
    tree.make("all")
    assert tree.executed() == ["01", "02"]
    tree.edit("utils/between/unused.py")
    tree.make("all")
    assert tree.executed() == []
    (tree.root / "utils" / "plots.py").write_text("")
    (tree.root / "utils" / "between" / "new.py").write_text("")
    tree.make("all")
    assert tree.executed() == ["01", "02"]
    tree.edit("utils/far/away.py")
    tree.make("all")
    assert tree.executed() == ["06"]


def test_notebook_behind_which_no_module_is_found_stops_make(tree):
    write_notebook(
        tree.root / "notebooks" / "02_augmentation.ipynb", code_cell("from utils.gone import x")
    )
    stopped = tree.make("all")
    assert stopped.returncode != 0
    assert "02_augmentation.ipynb imports no module of utils" in stopped.stderr
    assert tree.executed() == []
    assert not (tree.root / ".make" / "modules.mk").exists()


def test_failed_notebook_leaves_no_target_and_the_next_run_goes_on_from_there(tree):
    failed = tree.make("all", FAIL="notebooks/04_resnet50")
    assert failed.returncode != 0
    assert tree.executed() == ["01", "02", "03", "04"]
    executed = tree.root / "results" / "sample" / "notebooks"
    assert not (executed / "04_resnet50_training.ipynb").exists()
    assert tree.make("all").returncode == 0
    assert tree.executed() == ALL[ALL.index("04") :]


def test_each_study_has_its_own_results(tree):
    (tree.root / "data" / "chest_xray" / "train").mkdir(parents=True)
    tree.make("all", "STUDY=sample")
    *calls, last = tree.calls()
    assert all("--study sample --output results/sample/notebooks/" in call for call in calls)
    assert last == f"{FINDINGS} sample"
    tree.make("all", RESULTS_DIR="elsewhere")
    *calls, last = tree.calls()
    assert last == f"{FINDINGS} full"
    assert len(calls) == len(NOTEBOOKS)
    assert all("--study full --output elsewhere/full/notebooks/" in call for call in calls)


def test_the_study_is_announced_before_anything_runs(tree):
    sample = tree.make("all").stdout.splitlines()
    assert sample[0].startswith("===== STUDY = sample: rendered phantoms, not patients")
    (tree.root / "elsewhere" / "chest_xray").mkdir(parents=True)
    (tree.root / "elsewhere" / "chest_xray" / "source.json").touch()
    full = tree.make("all", DATA_DIR="elsewhere").stdout.splitlines()
    assert full[0] == "===== STUDY = full: the data set in elsewhere/chest_xray ====="


def test_full_study_without_data_is_refused_with_the_remedy(tree):
    refused = tree.make("all", "STUDY=full")
    assert refused.returncode != 0
    assert "data/chest_xray holds no data set; fetch it with: make data" in refused.stderr
    assert tree.executed() == []


def test_new_data_runs_the_full_study_again(tree):
    marker = tree.root / "data" / "chest_xray" / "source.json"
    marker.parent.mkdir(parents=True)
    marker.touch()
    tree.make("all")
    tree.calls()
    tree.edit("data/chest_xray/source.json")
    tree.make("all")
    assert tree.executed() == ALL


def test_unknown_study_is_refused_with_the_known_ones(tree):
    refused = tree.make("all", "STUDY=huge")
    assert refused.returncode != 0
    assert "there is no study 'huge'; STUDY is one of: full sample" in refused.stderr


def test_interrupted_setup_is_not_mistaken_for_done(tree):
    (tree.root / ".venv" / ".installed").unlink()
    assert tree.make("setup", FAIL="pip install").returncode != 0
    assert not (tree.root / ".venv" / ".installed").exists()
    tree.calls()
    assert tree.make("setup").returncode == 0
    assert tree.calls()[-2:] == INSTALL_STUDY
    tree.make("setup")
    assert tree.calls() == []
    tree.edit("requirements.lock")
    tree.make("setup")
    assert tree.calls()[-2:] == INSTALL_STUDY
    tree.edit("requirements-dev.lock")
    tree.make("setup")
    assert tree.calls() == []


@pytest.mark.parametrize("command", ["test", "check", "lint", "nbval", "site", "demo-picture"])
def test_what_only_checks_and_the_site_need_is_installed_for_them_alone(tree, command):
    for stamp in (".installed", ".installed-checks"):
        (tree.root / ".venv" / stamp).unlink()
    for study in ("all", "predict IMAGES=x OUT=y", "demo"):
        tree.make(*study.split())
    calls = tree.calls()
    assert set(INSTALL_STUDY) < set(calls)
    assert not set(INSTALL_CHECKS) & set(calls)
    tree.make(command, FAIL="requirements-dev.lock")
    assert tree.calls() == INSTALL_CHECKS
    tree.make(command)
    assert tree.calls()[:1] == INSTALL_CHECKS
    tree.make(command)
    assert not set(INSTALL_CHECKS) & set(tree.calls())


def install_gpu(tree: Tree, system: str, *arguments: str) -> subprocess.CompletedProcess:
    uname = tree.root / "bin" / "uname"
    uname.parent.mkdir(exist_ok=True)
    uname.write_text(f"#!/bin/sh\necho {system}\n")
    uname.chmod(0o755)
    path = f"{uname.parent}{os.pathsep}{os.environ['PATH']}"
    return tree.make("setup", *arguments, PATH=path)


def test_cudas_packages_are_installed_where_they_are_asked_for(tree):
    assert tree.make("setup").returncode == 0
    assert tree.calls() == [], "not unasked"
    cuda = f"{LOCKED} requirements-gpu.lock"
    assert install_gpu(tree, "Linux", "GPU=1", "FAIL=requirements-gpu").returncode != 0
    assert tree.calls() == [cuda]
    assert install_gpu(tree, "Linux", "GPU=1").returncode == 0
    assert tree.calls() == [cuda], "an interrupted installation is taken up again"
    install_gpu(tree, "Linux", "GPU=1")
    assert tree.calls() == []
    (tree.root / ".venv" / ".installed").unlink()
    install_gpu(tree, "Linux", "GPU=1")
    assert tree.calls()[-3:] == [*INSTALL_STUDY, cuda], "after the study's"


def test_cudas_packages_are_refused_on_a_system_without_them(tree):
    refused = install_gpu(tree, "Darwin", "GPU=1")
    assert refused.returncode != 0 and tree.calls() == []
    assert "GPU=1 is for Linux: TensorFlow has no CUDA packages for Darwin" in refused.stderr


def test_uv_installs_where_there_is_one(tree):
    uv = tree.root / "some tools" / "uv"
    uv.parent.mkdir()
    uv.write_text('#!/bin/sh\necho "uv $@" >> calls.log\n')
    uv.chmod(0o755)
    (tree.root / ".venv" / ".installed").unlink()
    assert "uv installs requirements.lock" in tree.make("setup", UV=str(uv)).stdout
    to_venv = "uv pip install -q --python .venv/bin/python --no-deps"
    assert tree.calls()[-2:] == [
        f"{to_venv} --require-hashes --requirement requirements.lock",
        f"{to_venv} --no-build-isolation --editable .",
    ]


QUIET_COMMANDS = (
    "predict IMAGES=x OUT=y", "demo", "screen", "chosen", "ablation", "two-sites",
    "explain", "all",
)  # fmt: skip


@pytest.mark.parametrize("command", QUIET_COMMANDS)
def test_the_terminal_shows_what_the_study_says_and_with_verbose_all(tree, command):
    quiet = tree.make(*command.split())
    assert quiet.returncode == 0, quiet.stderr
    banner = [line for line in quiet.stdout.splitlines() if line.startswith("=====")]
    said = [*banner, "Study 'sample' is up to date"] if command == "all" else []
    assert (quiet.stdout.splitlines(), quiet.stderr) == (said, "")
    assert tree.calls()[0].startswith(f"{QUIET} ")
    shutil.rmtree(tree.root / "results" / "sample", ignore_errors=True)
    tree.make(*command.split(), "VERBOSE=1")
    calls = tree.calls()
    assert calls and not any(QUIET in call for call in calls)


@pytest.mark.parametrize(
    ("settings", "called"),
    [
        ([], "round_two --study sample"),
        (["ONLY=released"], "round_two --study sample --only released"),
        (["ROUND=1"], "final_models --study sample"),
    ],
)
def test_chosen_rebuilds_a_round(tree, settings, called):
    assert tree.make("chosen", "STUDY=sample", *settings).returncode == 0
    assert tree.calls() == [f"{QUIET} utils.selection.{called}"]


def test_setup_says_in_three_lines_what_it_does(tree):
    (tree.root / ".venv" / ".installed").unlink()
    said = tree.make("setup")
    assert len(said.stdout.splitlines()) == 3
    assert said.stderr == ""
    (tree.root / ".venv" / ".installed").unlink()
    tree.calls()
    tree.make("setup", "VERBOSE=1")
    assert "install" in tree.calls()[-2] and " -qq " not in "".join(tree.calls())


def test_no_help_text_is_echoed(tree):
    for command in ("lab", "check", "lint", "readme", "cache", "cache-clean", "demo-picture"):
        assert "##" not in tree.make(command).stdout


@pytest.mark.parametrize("command", ["lab", "check", "cache-clean", "readme", "all"])
def test_a_command_installs_the_environment_first(tree, command):
    (tree.root / ".venv" / ".installed").unlink()
    run = tree.make(command)
    assert run.returncode == 0, run.stderr
    installation, *work = (call for call in tree.calls() if "pip --version" not in call)
    assert installation.startswith("-m pip install") or installation.startswith("-c import sys")
    assert work
    assert run.stdout.startswith("===== STUDY") == (command == "all")


def test_environment_without_pip_is_made_anew_by_a_supported_python_only(tree):
    (tree.root / ".venv" / ".installed").unlink()
    (tree.root / ".venv" / "bin" / "python").unlink()
    old = tree.root / "python2"
    old.write_text('#!/bin/sh\n[ "$1" = -m ] && exec ' + sys.executable + ' "$@"\nexit 1\n')
    old.chmod(0o755)
    refused = tree.make("setup", PYTHON="./python2")
    assert refused.returncode != 0
    assert "./python2 is not Python 3.11 to 3.13; name one" in refused.stderr
    assert not (tree.root / ".venv" / "bin" / "python").exists()


def test_another_environment_can_be_used(tree):
    shutil.move(tree.root / ".venv", tree.root / "conda")
    (tree.root / "conda" / ".installed").unlink()
    assert tree.make("all", VENV="conda").returncode == 0
    assert tree.executed() == ALL
    assert not (tree.root / ".venv").exists()


def test_nbval_runs_all_notebooks_against_scratch_results(tree):
    assert tree.make("nbval", FAIL="--nbval").returncode != 0
    assert tree.make("nbval").returncode == 0
    assert tree.make("nbval", FAIL="notebooks/02").returncode != 0, "those beside count, too"
    assert tree.make("nbval", FAIL="notebooks/05").returncode != 0
    calls = tree.calls()
    # Two commands side by side, of which each notes its call, the folder and what is in it.
    commands = sorted(call.split("--exitfirst ")[1] for call in calls if "--nbval" in call)
    files = [f"notebooks/{name}.ipynb" for name in NOTEBOOKS]
    on_sample = [file for file in files if file[10:12] in ("01", "02", "03", "04", "06")]
    others = [file for file in files if file not in on_sample]
    assert {*commands} == {" ".join(on_sample), " ".join(others)}
    assert "full" in calls
    scratch = next(call for call in calls if call.startswith("/"))
    assert not Path(scratch).is_relative_to(tree.root)
    assert not Path(scratch).parent.exists()


def test_nbval_notices_a_table_that_is_not_the_committed_one(tree):
    run = tree.make("nbval", SHOWN="0.98")
    assert run.returncode != 0
    assert "> 0.97" in run.stdout


def test_committed_notebooks_are_saved_in_order_up_to_the_first_failure(tree):
    assert tree.make("notebooks", FAIL="notebooks/03").returncode != 0
    assert tree.executed() == ["01", "02", "03"]
    assert tree.make("notebooks").returncode == 0
    last = list(NOTEBOOKS)[-1]
    assert (
        tree.calls()[-1] == f"{QUIET} utils.tools.execute notebooks/{last}.ipynb --save-committed"
    )


def test_test_is_lint_pytest_the_sample_and_nbval(tree):
    (tree.root / "data" / "chest_xray" / "train").mkdir(parents=True)
    assert tree.make("test").returncode == 0
    calls = tree.calls()
    lint, unit_tests = calls[:2], calls[2]
    assert lint == ["-m ruff check", "-m ruff format --check"]
    assert unit_tests == "-m pytest --numprocesses 2 --dist loadfile"
    study = calls[3 : 3 + len(ALL)]
    assert all("--study sample" in call and "--solutions" in call for call in study)
    assert calls[3 + len(ALL)] == f"{FINDINGS} sample"
    assert "--nbval" in calls[4 + len(ALL)]


def test_check_leaves_the_slow_tests_out(tree):
    assert tree.make("check", "TEST_PROCESSES=1", "WORKERS=3").returncode == 0
    assert tree.calls()[-1] == "-m pytest --numprocesses 1 --dist loadfile -m not slow"


def test_commands_get_workers_and_scheduler(tree):
    tree.make("cache-fill", "WORKERS=4")
    tree.make("cache-fill", "STUDY=full", "BACKBONE=vgg19", SCHEDULER="tcp://host:8786")
    fill = f"{QUIET} utils.training.activation_cache fill --study"
    assert tree.calls() == [
        f"{fill} sample --backbone resnet50", "4 ",
        f"{fill} full --backbone vgg19", " tcp://host:8786",
    ]  # fmt: skip


def test_data_passes_archive_and_source_on(tree):
    tree.make("data")
    tree.make("data", "ARCHIVE=my chest x-rays.zip")
    tree.make("data", "SOURCE=medmnist")
    tree.make("data", "SOURCE=nih_adults", "ARCHIVE=adults")
    assert tree.calls() == [
        "-m utils.data.download",
        "-m utils.data.download --archive=my chest x-rays.zip",
        "-m utils.data.download --source=medmnist",
        "-m utils.data.download --archive=adults --source=nih_adults",
    ]


AWKWARD = ("O'Brien clinic", "cost $5 & (new)", "$HOME; echo no", 'a "b" `c` #d', "röntgen 肺", "~")


@pytest.mark.parametrize("path", AWKWARD)
@pytest.mark.parametrize("in_environment", [False, True])
def test_any_path_reaches_predict_demo_and_data_as_it_was_typed(tree, path, in_environment):
    values = {"IMAGES": path, "OUT": f"{path}.csv", "MODEL": f"{path}.keras", "ARCHIVE": path}
    values |= {"SCALE": "0..1", "POSITIVE": "0", "PORT": "99"}
    typed = () if in_environment else [f"{name}={value}" for name, value in values.items()]
    for command in ("predict", "demo", "data"):
        done = tree.make(command, *typed, **(values if in_environment else {}))
        assert done.returncode == 0, done.stderr
    model = f"--model={path}.keras --scale=0..1 --positive=0"
    assert tree.calls() == [
        f"{QUIET} utils.tools.predict --study full --images={path} --out={path}.csv {model}",
        f"{QUIET} demo --study full {model} --port=99",
        f"-m utils.data.download --archive={path}",
    ]


def test_what_is_not_named_is_left_out_or_asked_for(tree):
    tree.make("predict", "IMAGES=a", "OUT=b", "EVALUATE=1", "STUDY=sample")
    tree.make("demo")
    assert tree.calls() == [
        f"{QUIET} utils.tools.predict --study sample --evaluate --images=a --out=b",
        f"{QUIET} demo --study full",
    ]  # fmt: skip
    assert "IMAGES=folder is missing" in tree.make("predict", "OUT=b").stderr
    assert "OUT=file.csv is missing" in tree.make("predict", "IMAGES=a").stderr
    assert tree.calls() == []


@pytest.mark.parametrize("name", ["VENV", "RESULTS_DIR"])
def test_a_space_that_make_cannot_use_is_refused_with_a_remedy_that_works(tree, name):
    folder = {"VENV": ".venv", "RESULTS_DIR": "results"}[name]
    shutil.move(tree.root / folder, tree.root / "my own folder")
    refused = tree.make("all", f"{name}=my own folder")
    assert refused.returncode != 0 and tree.calls() == []
    assert f"{name}='my own folder' has a space" in refused.stderr
    remedy = "ln -s 'my own folder' link"
    assert remedy in refused.stderr
    subprocess.run(remedy, shell=True, cwd=tree.root, check=True)
    assert tree.make("all", f"{name}=link").returncode == 0
    assert tree.executed() == ALL


@pytest.mark.parametrize("name", ["DATA_DIR", "FIGURES_DIR"])
def test_other_folders_may_have_any_name(tree, name):
    done = tree.make("clean", f"{name}=O'Brien's own")
    assert done.returncode == 0 and "rror" not in done.stderr, done.stderr


def test_site_is_built_where_the_workflow_looks_for_it(tree):
    assert tree.make("site", FAIL="utils.tools.site").returncode != 0
    tree.calls()
    assert tree.make("site").returncode == 0
    assert tree.calls() == [f"{QUIET} utils.tools.site build/site"]


def test_clean_keeps_data_environment_and_committed_results(tree):
    kept = [
        "data/activations/block.npy", "data/chest_xray/source.json",
        "results/full/metrics.json", "figures/full/05_roc.png", ".venv/.installed",
    ]  # fmt: skip
    gone = [
        "results/sample/metrics.json", "figures/sample/01_grid.png",
        "results/full/notebooks/05_evaluation.ipynb", "results/full/models/model.keras",
        "build/site/index.html", "docs/api/utils.common.files.rst",
    ]  # fmt: skip
    for path in kept + gone:
        (tree.root / path).parent.mkdir(parents=True, exist_ok=True)
        (tree.root / path).touch()
    # An empty setting must not turn the folder into the file system's root.
    cleaned = tree.make("clean", RESULTS_DIR="", FIGURES_DIR="")
    assert cleaned.returncode == 0, cleaned.stderr
    assert [path for path in kept if not (tree.root / path).exists()] == []
    assert [path for path in gone if (tree.root / path).exists()] == []
