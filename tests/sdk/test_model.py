"""Models: energies, conversions both ways, files."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import subprocess
import sys

import dimod
import glauber as gl
import networkx as nx
import numpy as np
import pytest
from dimod.serialization import coo
from glauber.errors import FileFormatError, InvalidModelError
from glauber.formats import read_gset
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# Multiples of 1/8 up to 2^10: sums and halves of a few of them are exact in doubles, so conversions must be too.
dyadic = st.integers(-(2**13), 2**13).map(lambda k: k / 8)


@st.composite
def ising_models(draw, values=dyadic, max_sites=7):
    n = draw(st.integers(1, max_sites))
    pairs = list(itertools.combinations(range(n), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    fields = draw(st.lists(values, min_size=n, max_size=n))
    couplings = draw(st.lists(values, min_size=len(chosen), max_size=len(chosen)))
    return gl.IsingModel(fields, np.array(chosen, dtype=int).reshape(-1, 2), couplings, draw(values))


def all_spins(n):
    return np.array(list(itertools.product((-1, 1), repeat=n)))


@given(ising_models())
def test_energy_is_the_formula(model):
    for s in all_spins(model.n_sites)[:16]:
        pairs = zip(model.edges, model.couplings, strict=True)
        expected = model.offset - sum(h * x for h, x in zip(model.fields, s, strict=True))
        expected -= sum(J * s[i] * s[j] for (i, j), J in pairs)
        assert model.energies(s) == expected  # exact: dyadic values


@given(ising_models())
def test_qubo_round_trip_is_exact(model):
    qubo, offset = model.to_qubo()
    states = all_spins(model.n_sites)
    x = (states + 1) // 2
    direct = offset + sum(value * x[:, i] * x[:, j] for (i, j), value in qubo.items())
    np.testing.assert_array_equal(direct, model.energies(states))
    back = gl.IsingModel.from_qubo(qubo, offset=offset)
    np.testing.assert_array_equal(back.energies(states), model.energies(states))
    np.testing.assert_array_equal(back.fields, model.fields)


@given(ising_models())
def test_bqm_round_trip_is_exact(model):
    bqm = model.to_bqm()
    states = all_spins(model.n_sites)
    np.testing.assert_array_equal(bqm.energies((states, list(range(model.n_sites)))), model.energies(states))
    back = gl.IsingModel.from_bqm(bqm)
    np.testing.assert_array_equal(back.energies(states), model.energies(states))


@given(ising_models(), st.sampled_from([".npz", ".json"]))
@settings(deadline=None)
def test_files_keep_every_bit(tmp_path_factory, model, suffix):
    path = tmp_path_factory.mktemp("models") / f"model{suffix}"
    gl.write_model(model, path)
    assert gl.read_model(path) == model


def test_json_keeps_doubles_exactly(tmp_path):
    model = gl.IsingModel.from_edges([(0, 1, 0.1), (1, 2, math.pi * 1e-300)], {0: 1 / 3}, offset=1e17 + 1)
    gl.write_model(model, tmp_path / "m.json")
    assert gl.read_model(tmp_path / "m.json") == model


def test_binary_bqm_and_labels():
    bqm = dimod.BinaryQuadraticModel({"a": 1.0, "b": -2.0}, {("a", "b"): 3.0}, 0.5, "BINARY")
    model = gl.IsingModel.from_bqm(bqm)
    assert model.labels == ("a", "b")
    for a, b in itertools.product((0, 1), repeat=2):
        assert model.energies([2 * a - 1, 2 * b - 1]) == bqm.energy({"a": a, "b": b})


def test_dense_and_networkx_and_edges_agree():
    J = np.array([[0, 1, 0], [1, 0, -2], [0, -2, 0.0]])
    dense = gl.IsingModel.from_dense(J, [0.5, 0, 0])
    graph = nx.Graph()
    graph.add_node(0, bias=0.5)
    graph.add_weighted_edges_from([(0, 1, 1.0), (2, 1, -2.0)])
    assert dense == gl.IsingModel.from_edges([(0, 1, 1.0), (2, 1, -2.0)], {0: 0.5})
    states = all_spins(3)
    from_graph = gl.IsingModel.from_networkx(graph)
    named = [list(graph.nodes).index(k) for k in range(3)]
    order = np.argsort(named)
    np.testing.assert_array_equal(
        from_graph.energies(states[:, order][:, :]), dense.energies(states[:, order][:, named])
    )


def test_replace_shares_the_graph_and_changes_the_key():
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    other = model.replace(couplings=[2.0])
    assert other.edges is model.edges
    assert other.graph_key == model.graph_key
    assert other.key != model.key
    with pytest.raises(InvalidModelError, match="must be finite"):
        model.replace(fields=[math.nan, 0])


def test_arrays_cannot_be_changed_behind_the_key():
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    with pytest.raises(ValueError, match="read-only"):
        model.couplings[0] = 5


@given(hnp.arrays(np.int64, (4,), elements=st.integers(0, 2)))
def test_potts_energy_in_all_three_forms(states):
    rng = np.random.default_rng(3)
    edges = [(0, 1), (2, 1), (2, 3)]
    fields = rng.integers(-4, 5, (4, 3)).astype(float)
    table = rng.integers(-4, 5, (3, 3)).astype(float)
    per_edge = rng.integers(-4, 5, (3, 3, 3)).astype(float)
    for couplings in ([1.0, -2.0, 3.0], table, per_edge):
        model = gl.PottsModel(fields, edges, couplings)
        expected = -sum(fields[i, states[i]] for i in range(4))
        for k, (i, j) in enumerate(edges):  # tables are indexed as the edges were given, turned round or not
            if np.ndim(couplings) == 1:
                expected -= couplings[k] * (states[i] == states[j])
            elif np.ndim(couplings) == 2:
                expected -= table[states[i], states[j]]
            else:
                expected -= per_edge[k, states[i], states[j]]
        assert model.energies(states) == expected


def test_potts_forbidden_state_has_infinite_energy(tmp_path):
    allowed = np.ones((2, 3), dtype=bool)
    allowed[0, 2] = False
    model = gl.PottsModel(np.zeros((2, 3)), [(0, 1)], [1.0], allowed)
    assert model.energies([2, 0]) == math.inf
    assert model.energies([1, 1]) == -1
    gl.write_model(model, tmp_path / "p.npz")
    assert gl.read_model(tmp_path / "p.npz") == model


def test_a_disk_that_is_full_leaves_the_old_file_and_no_other(tmp_path):
    """A limit on the size of files fails in the middle of the write, as a full disk does."""
    path = tmp_path / "m.npz"
    gl.write_model(gl.IsingModel([1.0], [], []), path)
    before = path.read_bytes()
    code = (
        "import resource, sys, numpy as np, glauber as gl\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "gl.write_model(gl.IsingModel(np.random.default_rng(0).normal(size=10_000), [], []), sys.argv[1])"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert f"cannot write {path}: File too large" in ended.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]
    assert path.read_bytes() == before


def test_a_file_has_the_mode_of_the_umask_which_is_not_touched(tmp_path, monkeypatch):
    """It belongs to all threads: one that asked for it would change it for the others."""

    def touched(mask):
        raise AssertionError("the umask was touched")

    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", touched)
            for _ in range(2):
                gl.write_model(gl.IsingModel([1.0], [], []), tmp_path / "m.npz")
    finally:
        os.umask(before)
    assert (tmp_path / "m.npz").stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]


def test_a_qubo_keeps_the_meaning_of_its_keys():
    numbers = gl.IsingModel.from_qubo({(2, 0): 1.0, (1, 1): -3.0})
    assert numbers.labels is None  # plain indices, in whatever order they came
    assert numbers.fields.tolist() == [-0.25, 1.5, -0.25]
    names = gl.IsingModel.from_qubo({("b", "a"): 4.0, ("a", "b"): 2.0})
    assert names.labels == ("b", "a")
    assert names.couplings.tolist() == [-1.5]  # the two add up
    with pytest.raises(InvalidModelError, match="pairs of labels"):
        gl.IsingModel.from_qubo({"ab": 1.0, 3: 2.0})


@pytest.mark.parametrize("edge", [[0, 2**32], [-1, 0], [0, 2**63 - 1], [0.5, 1], [True, False]])
def test_edges_of_a_json_file_do_not_wrap(tmp_path, edge):
    path = tmp_path / "m.json"
    gl.write_model(gl.IsingModel([0.0, 0.0], [(0, 1)], [1.0]), path)
    content = json.loads(path.read_text())
    content["arrays"]["edges"] = [edge]
    path.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match=r"m\.json"):
        gl.read_model(path)


def test_gset_energy_is_minus_the_cut(tmp_path):
    path = tmp_path / "K3"
    path.write_text("3 3\n1 2 1\n2 3 -1\n1 3 2\n")
    model, graph = gl.read_model(path), read_gset(path)
    for s in all_spins(3):
        cut = int(s[0] != s[1]) - int(s[1] != s[2]) + 2 * int(s[0] != s[2])
        assert model.energies(s) == -cut
        assert graph.cut(s) == cut


def test_qubo_and_coo_files(tmp_path):
    (tmp_path / "a.qubo").write_text("c a comment\np qubo 0 3 1 2\n0 0 1.5\n0 1 -2\n1 2 4\n")
    model = gl.read_model(tmp_path / "a.qubo")
    for s in all_spins(3):
        x = (s + 1) // 2
        assert model.energies(s) == 1.5 * x[0] - 2 * x[0] * x[1] + 4 * x[1] * x[2]
    (tmp_path / "b.coo").write_text("# vartype=SPIN\n0 0 1\n0 1 -1.5\n1 2 0.5\n")
    model = gl.read_model(tmp_path / "b.coo")
    for s in all_spins(3):
        assert model.energies(s) == s[0] - 1.5 * s[0] * s[1] + 0.5 * s[1] * s[2]


def test_what_dimod_writes_as_coo_is_read_with_its_energies(tmp_path):
    bqm = dimod.BinaryQuadraticModel({0: 1.0, 1: 0.0, 2: -2.5}, {(0, 1): 0.5, (1, 2): -1.0}, 0.0, "SPIN")
    (tmp_path / "c.coo").write_text(coo.dumps(bqm, vartype_header=True))
    model = gl.read_model(tmp_path / "c.coo")
    states = all_spins(3)
    np.testing.assert_array_equal(model.energies(states), bqm.energies((states, [0, 1, 2])))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("G", "", r"line 1: expected a Gset header"),
        ("G", "3\n", r"line 1: expected a Gset header"),
        ("G", "3 2\n1 2 1\n", "promises 2 edges, the file has 1; it may be truncated"),
        ("G", "3 1\n1 4 1\n", r"line 2: expected .* from 1 to 3, found '1 4 1'"),
        ("G", "3 1\n1 1 1\n", "line 2: expected an edge between two different nodes"),
        ("G", "3 1\n1 2 nan\n", "line 2"),
        ("G", "3 1\n1 2\n", "line 2"),
        ("G", "3 2\n1 2 1\n2 1 1\n", "a second time"),
        ("a.qubo", "p qubo 0 2 1\n", "line 1: expected a header"),
        ("a.qubo", "p qubo 0 2 1 0\n0 2 1\n", "line 2"),
        ("a.qubo", "p qubo 0 2 1 1\n0 0 1\n", "promises 2 entries"),
        ("a.coo", "# vartype=TERNARY\n0 0 1\n", "TERNARY"),
        ("a.coo", "# vartype=SPIN\n", "no entries"),
        ("a.json", "{", "line 1"),
        ("a.json", "[]", "holds no header"),
        ("a.json", json.dumps({"format": "glauber.model", "version": 99}), "version 99"),
        ("a.json", json.dumps({"format": "glauber.model", "version": 1, "model": "ising"}), "valid model"),
        ("a.json", json.dumps({"format": "other", "version": 1}), "holds other"),
        ("a.npz", "not a zip", "not a complete"),
    ],
)
def test_malformed_files_say_where(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FileFormatError, match=message):
        gl.read_model(path)


def test_truncated_npz(tmp_path):
    path = tmp_path / "m.npz"
    gl.write_model(gl.IsingModel.from_edges([(0, 1, 1.0)]), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileFormatError, match="not a complete"):
        gl.read_model(path)


def test_npz_with_pickle_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, header=np.array([{"format": "glauber.model"}], dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError):
        gl.read_model(path)


def test_binary_rubbish_and_missing_folder(tmp_path):
    path = tmp_path / "G1"
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(FileFormatError, match="not text"):
        gl.read_model(path)
    model = gl.IsingModel.from_edges([(0, 1, 1.0)])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        gl.write_model(model, tmp_path / "no" / "m.npz")
    with pytest.raises(FileFormatError, match=r"\.npz or \.json"):
        gl.write_model(model, tmp_path / "m.txt")
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=200)
def test_no_file_content_gives_an_untyped_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("fuzz")
    for suffix in ("", ".qubo", ".coo", ".json", ".npz"):
        path = folder / f"file{suffix}"
        path.write_bytes(content)
        with contextlib.suppress(FileFormatError):
            assert isinstance(gl.read_model(path), gl.IsingModel | gl.PottsModel)


@pytest.mark.parametrize("kind", ["ising", "potts"])
def test_an_energy_does_not_depend_on_how_many_are_asked_for(kind):
    rng = np.random.default_rng(0)
    n, edges = 150, np.array([(i, j) for i in range(150) for j in range(i + 1, 150) if (i + j) % 7 == 0])
    if kind == "ising":
        model = gl.IsingModel(rng.normal(size=n), edges, rng.normal(size=len(edges)))
        states = rng.choice([-1, 1], size=(700, n))
    else:
        model = gl.PottsModel(rng.normal(size=(n, 3)), edges, rng.normal(size=len(edges)))
        states = rng.integers(0, 3, size=(700, n))
    whole = model.energies(states)
    for size in (1, 2, 3, 7, 64, 255, 256, 257, 600):
        for first in (0, 1, 90):
            part = states[first : first + size]
            assert np.array_equal(model.energies(part), whole[first : first + size]), (size, first)  # to the last bit
