"""`make all` ends with what was found, and phantoms are no patients."""

from utils.common.files import read_json, write_json
from utils.common.paths import final_metrics_file, metrics_file, published_results_dir
from utils.tools.findings import describe_findings, main


def test_findings_are_those_of_the_results(capsys):
    assert main(["--study", "full"]) == 0
    first, *models, last = capsys.readouterr().out.splitlines()
    assert first == "Found on the 624 test images, radiographs, with 95% intervals:"
    published = read_json(published_results_dir() / "final_metrics.json")
    assert [line.split()[0] for line in models] == [*published, "ensemble_two", "released"]
    area, accuracy = "ROC-AUC 0.993 [0.988, 0.996]", "accuracy at 0.5 0.957 [0.938, 0.972]"
    (chosen,) = [line for line in models if line.endswith(" (chosen)")]
    assert chosen.split(maxsplit=1) == ["ensemble_two", f"{area}, {accuracy} (chosen)"]
    assert last == "Open the notebooks in results/full/notebooks, the figures in figures/full"


def test_a_sample_is_of_phantoms(tmp_path, monkeypatch):
    monkeypatch.setenv("RESULTS_DIR", str(tmp_path))
    published = published_results_dir()
    write_json(metrics_file("sample"), read_json(published / "metrics.json"))
    write_json(final_metrics_file("sample"), read_json(published / "final_metrics.json"))
    text = describe_findings("sample", "phantoms")
    assert "rendered phantoms, which say nothing about patients" in text
    assert f"Open the notebooks in {tmp_path / 'sample' / 'notebooks'}" in text
