"""The language model learns, resumes bit for bit, writes its results, and refuses what it cannot read."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")

import glauber as gl  # noqa: E402

from examples.tiny_thermo_lm import data  # noqa: E402
from examples.tiny_thermo_lm.__main__ import mark  # noqa: E402
from examples.tiny_thermo_lm.train import held_out, nats, train  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path):
    """Words in a fixed order of changes, so that context helps."""
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "alphabet", "betamax"]
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(" ".join(rng.choice(words, 60)) for _ in range(150)))
    return file


@pytest.mark.timeout(600)
def test_it_learns_and_both_twins_end_alike(text, one_thread):
    corpus = data.load(text)
    with gl.open_device("sim://ideal", seed=1) as device:
        found = {}
        for softmax in (False, True):
            trained = train(corpus, device, seed=0, softmax=softmax, n_steps=60, n_samples=16)
            test = held_out(corpus, 64, 64)
            found[softmax] = nats(trained.model, test, n_samples=None if softmax else 16).mean()
        assert trained.usage.jobs == 0
    assert found[False] == pytest.approx(found[True], abs=0.1)
    assert found[False] < data.bigram_nats(corpus, test)[1] / 2  # well under single characters after 60 steps


def test_a_stopped_training_goes_on_bit_for_bit(text, tmp_path, monkeypatch):
    monkeypatch.setattr("examples.tiny_thermo_lm.train.CHECKPOINT_EVERY", 3)
    corpus = data.load(text)

    class StoppedError(Exception):
        pass

    def stop(step):
        if step == 5:
            raise StoppedError

    def run(name, on_step=None):
        with gl.open_device("sim://ideal", seed=1) as device:
            file = tmp_path / f"{name}.pt"
            made = train(
                corpus, device, seed=0, softmax=False, n_steps=8, n_samples=4, checkpoint=file, on_step=on_step
            )
        return torch.cat([p.detach().ravel() for p in made.model.parameters()]), made.begin

    whole, begin = run("whole")
    assert begin == 0
    with pytest.raises(StoppedError):
        run("cut", stop)
    again, begin = run("cut")
    assert begin == 3
    assert torch.equal(again, whole)


@pytest.mark.timeout(600)
def test_the_command_writes_results(text, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "examples.tiny_thermo_lm", "--text", str(text), "--steps", "50", "--seeds", "0"]
    done = subprocess.run(
        [*command, "--samples", "4", "--windows", "8", "--out", str(out)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((out / "results.json").read_text())
    assert (out / "RESULTS.md").read_text().rstrip() == done.stdout.rstrip()
    assert figures["device_usage"]["jobs"] == 100
    assert len(figures["text"]) == 432
    assert (out / "curves.png").stat().st_size > 1000
    assert figures["steps_with_draws"] == 50
    assert figures["curves"]["softmax"]["begin"] == 0
    assert len(figures["curves"]["softmax"]["losses"]) == 1


def test_windows_do_not_overlap(text):
    corpus = data.load(text)
    inner = len(corpus.test) - 1
    assert inner < 100 * 65 + 1, "the text must be too short for what is asked"
    spots = data.Corpus("numbers", "", corpus.train, np.arange(255, dtype=np.uint8))
    test = held_out(spots, 9, 1000)
    assert len(test) == 25
    assert (np.diff(test[:, 0].numpy()) >= 10).all()
    assert len(held_out(corpus, 64, 1000)) == inner // 65


def test_checkpoints_of_another_text_or_device_are_no_start(text):
    corpus = data.load(text)
    other = data.Corpus(corpus.name, corpus.alphabet, corpus.train[::-1].copy(), corpus.test)
    marks = {mark("sim://ideal", corpus), mark("firmware://host", corpus), mark("sim://ideal", other)}
    assert len(marks) == 3
    assert mark("sim://ideal", data.load(text)) in marks


@pytest.mark.parametrize("example", ["tiny_thermo_lm", "denoising_digits"])
def test_seeds_that_are_none_are_refused(example):
    for seeds in (["-1"], ["1", "1"]):
        command = [sys.executable, "-m", f"examples.{example}", "--seeds", *seeds]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "--seeds must be 0 or more" in done.stderr


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"too short", "a.txt", "some 11,000"),
        (b"\xff\xfe\xfa" * 5000, "a.txt", "UTF-8"),
        (gzip.compress(b'{"no": 1}\n'), "a.jsonl.gz", "lines of JSON"),
        (b"not gzip", "a.txt.gz", "UTF-8 text"),
    ],
)
def test_wrong_files_are_refused(tmp_path, content, name, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.load(file)


def test_where_text_is_looked_for(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no text file"):
        data.find_text(tmp_path / "none.txt")
    (tmp_path / "text").mkdir()
    file = tmp_path / "text" / "textcorpus.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps({"text": "hello " * 3000}).encode() * 1))
    monkeypatch.setenv("GLAUBER_DATA", str(tmp_path))
    assert data.find_text(None) == file
    name, documents = data.read_documents(None)
    assert "Python" in name
    assert sum(map(len, documents)) > 400_000
