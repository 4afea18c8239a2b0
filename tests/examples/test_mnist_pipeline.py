"""examples/mnist_ebm as a whole, in its tiny size."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")
pytest.importorskip("thrml", reason="needs the extra thrml: pip install -e '.[thrml]'")

from examples.mnist_ebm.data import find_raw
from examples.mnist_ebm.files import write_whole
from examples.mnist_ebm.pipeline import plain

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "examples.mnist_ebm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def mnist():
    try:
        find_raw()
    except FileNotFoundError as error:
        pytest.skip(f"needs MNIST: {error}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tiny_study_is_complete_and_is_not_done_twice(mnist, tmp_path):
    """Stopped in the middle, gone on, and done again: figures are those of a study that was never stopped."""
    command = [sys.executable, "-m", "examples.mnist_ebm", "--smoke", "--out", str(tmp_path)]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "runs").exists():
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.1)
    time.sleep(1)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode in (130, -signal.SIGINT), said
    done = run("--smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "RESULTS.md").read_text()
    for picture in (part.split(")")[0] for part in page.split("](")[1:]):
        assert (tmp_path / picture).stat().st_size > 1000, picture
    for stage in ("explore", "search", "exact", "digits", "epoch", "blocks", "mixing", "speed", "joules", "pictures"):
        assert json.loads((tmp_path / f"{stage}.json").read_text())["figures"]
    every = json.loads((tmp_path / "results.json").read_text())
    assert every["speed"]["figures"] == json.loads((tmp_path / "speed.json").read_text())["figures"]
    stages = [path for path in tmp_path.rglob("*.json") if path.name != "results.json"]
    before = [path.stat().st_mtime for path in stages]
    again = run("--smoke", "--out", str(tmp_path))
    assert again.returncode == 0
    assert [path.stat().st_mtime for path in stages] == before
    assert json.loads((tmp_path / "results.json").read_text()) == every
    assert (tmp_path / "RESULTS.md").read_text() == page
    kept = json.loads((tmp_path / "runs" / "chain-0" / "figures.json").read_text())["figures"]
    other = tmp_path / "other"
    assert run("--smoke", "--out", str(other), "--only", "train chain").returncode == 0
    fresh = json.loads((other / "runs" / "chain-0" / "figures.json").read_text())["figures"]
    for name in ("looks", "likelihood", "conditional", "unconditional"):
        assert fresh[name] == kept[name]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--data", "/nowhere"), 1, "lacks some of"),
        (("--only", "trian"), 2, "--list names them"),
        (("--out", "/proc/nowhere"), 1, "error:"),
    ],
)
def test_what_cannot_be_is_said_at_once(arguments, code, word):
    done = run("--smoke", "--only", "explore", *arguments)
    assert done.returncode == code
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_the_stages_are_listed():
    done = run("--smoke", "--list")
    assert done.returncode == 0
    assert "train chain, seed 0" in done.stdout.splitlines()


def test_results_hold_numbers_texts_and_lists_only():
    import numpy as np

    given = {"a": np.float64(1.5), 2: (np.int64(3), float("nan"), None), "c": [True, "text"]}
    assert plain(given) == {"a": 1.5, "2": [3, None, None], "c": [True, "text"]}


def test_a_damaged_result_is_made_again(tmp_path):
    from examples.mnist_ebm.pipeline import Study
    from examples.mnist_ebm.stages import SMOKE

    study = Study(ROOT / "examples" / "mnist_ebm" / "configs" / "smoke", tmp_path, SMOKE)
    made = []
    for content in (None, '{"key": "half', "[]", None):
        if content is not None:
            (tmp_path / "s.json").write_text(content)
        assert study.stage("s", "key", lambda: made.append(1) or {"x": 1}).figures == {"x": 1}
    assert len(made) == 3
    assert study.stage("s", "another key", lambda: {"x": 2}).figures == {"x": 2}
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("chain", None, r"chain\.toml must be there"),
        ("chain", 'title = "a"\n[model]\nkind = "rbm"\n', "kind 'chain'"),
        ("vae", 'title = "a"\nseeds = []\n[model]\nkind = "vae"\nn_parameters = 100000\n', r"vae\.toml: seeds"),
    ],
)
def test_configurations_that_stages_cannot_work_with_are_named(tmp_path, name, text, word):
    from examples.mnist_ebm.pipeline import Study
    from examples.mnist_ebm.stages import SMOKE

    folder = tmp_path / "configs"
    shutil.copytree(ROOT / "examples" / "mnist_ebm" / "configs" / "smoke", folder)
    Study(folder, tmp_path / "out", SMOKE)
    (folder / f"{name}.toml").unlink()
    if text is not None:
        (folder / f"{name}.toml").write_text(text)
    with pytest.raises(ValueError, match=word):
        Study(folder, tmp_path / "out", SMOKE)


def test_results_of_other_images_are_not_mixed(tmp_path, monkeypatch):
    import numpy as np

    from examples.mnist_ebm import pipeline
    from examples.mnist_ebm.config import DataConfig
    from examples.mnist_ebm.data import ALL, PACKAGED, Dataset, Part
    from examples.mnist_ebm.stages import SMOKE

    part = Part(np.zeros((1, 28, 28), dtype=np.uint8), np.zeros(1, dtype=np.uint8))
    for source, levels in ((PACKAGED, 2), (PACKAGED, 4), (ALL, 2)):
        monkeypatch.setattr(pipeline, "load", lambda source=source, **how: Dataset(source, 2, part, part, part))
        study = pipeline.Study(ROOT / "examples" / "mnist_ebm" / "configs" / "smoke", tmp_path, SMOKE)
        if source == PACKAGED:
            assert study.dataset(DataConfig(n_levels=levels)).source == PACKAGED
        else:
            with pytest.raises(ValueError, match=r"10,000 of npm.*all 70,000.*--out"):
                study.dataset(DataConfig(n_levels=levels))


def test_damaged_samples_are_named_with_what_to_do(tmp_path):
    import numpy as np
    from glauber.errors import FileFormatError

    from examples.mnist_ebm.evaluate import kept_samples

    path = tmp_path / "samples.npz"
    np.savez_compressed(path, shown=np.ones((3, 2, 2)), labels=np.arange(3))
    assert kept_samples(tmp_path)[1].tolist() == [0, 1, 2]
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:60] + b"\0\0\0\0\0\0" + whole[66:], b"nothing of it"):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"samples\.npz is damaged.*remove .*figures\.json"):
            kept_samples(tmp_path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "first")
    (path.parent / f".a.txt.{os.getpid()}").symlink_to("/dev/full")  # as on a full disk
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "second")
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["a.txt"]


def test_the_committed_page_is_made_of_the_committed_figures():
    from examples.mnist_ebm.pipeline import Result, Study
    from examples.mnist_ebm.report import markdown
    from examples.mnist_ebm.stages import Sizes

    folder = ROOT / "examples" / "mnist_ebm"
    study = Study(folder / "configs", folder, Sizes())
    every = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    results = {name: Result(**one) for name, one in every.items()}
    assert set(results) == set(study.stages())
    page = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert markdown(study, results) == page
    for name, config in study.runs.items():
        for seed in config.seeds:
            assert results[f"train {name}, seed {seed}"].figures["digest"] == config.digest
    for picture in (part.split(")")[0] for part in page.split("](")[1:]):
        assert (folder / picture).is_file(), picture
