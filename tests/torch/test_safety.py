"""SafeModel: what it refuses, that critical tasks draw nothing, what it logs, and when it asks for a person."""

from __future__ import annotations

import json
import math

import glauber as gl
import pytest
from glauber.errors import InputRefusedError, InvalidModelError, OutputRefusedError, SafetyError, StoreCorruptError

torch = pytest.importorskip("torch", reason="needs the extra torch: pip install -e '.[torch]'")
from glauber.torch.safety import OTHER_TASKS, fingerprint  # noqa: E402

RULE = gl.torch.InputRule(shape=(None, 4), low=-10.0, high=10.0)
REVIEW = gl.torch.ReviewRule(min_confidence=0.9)


@pytest.fixture
def model(device):
    torch.manual_seed(0)
    return torch.nn.Sequential(gl.torch.PbitLinear(4, 6, device), torch.nn.Linear(6, 3))


@pytest.fixture
def log(tmp_path):
    return gl.torch.AuditFile(tmp_path / "audit.jsonl")


def lines(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


@pytest.mark.parametrize("task", gl.torch.CRITICAL_TASKS)
def test_critical_tasks_draw_nothing(model, log, task):
    safe = gl.torch.SafeModel(model, task, RULE, REVIEW, log)
    x = torch.randn(5, 4)
    answers = [safe(x) for _ in range(3)]
    assert model[0].bits.sampler.usage.jobs == 0
    with gl.torch.deterministic():
        means = torch.softmax(model(x).double(), -1)
    for answer in answers:
        assert answer.deterministic
        assert torch.equal(answer.prediction.probabilities, means.detach())
        assert float(answer.prediction.mutual_information.max()) == 0
    assert len({line["output"] for line in lines(log)}) == 1


@pytest.mark.parametrize("task", OTHER_TASKS)
def test_other_tasks_may_draw(model, log, task):
    safe = gl.torch.SafeModel(model, task, RULE, REVIEW, log, n_draws=20)
    answer = safe(torch.randn(5, 4))
    assert not answer.deterministic
    assert model[0].bits.sampler.usage.samples > 0
    assert (answer.prediction.mutual_information > 0).all()
    with gl.torch.deterministic():
        assert safe(torch.randn(5, 4)).deterministic


def test_a_draw_in_a_critical_task_gives_no_answer(device, log):
    class Stubborn(torch.nn.Module):
        def __init__(self, noise):
            super().__init__()
            self.sampler = gl.torch.Sampler(device)
            self.noise = noise

        def forward(self, x):
            return x + self.noise(self, x).reshape(x.shape)

    for noise in (
        lambda self, x: self.sampler.bits(x),
        lambda self, x: torch.rand_like(x),
        lambda self, x: torch.nn.functional.dropout(x, 0.5, training=True),
    ):
        safe = gl.torch.SafeModel(
            Stubborn(lambda self, x, n=noise: n(self, x).reshape(x.shape)), "triage", RULE, REVIEW, log
        )
        with pytest.raises(SafetyError, match="was drawn in a triage task"):
            safe(torch.ones(2, 4))
        last = lines(log)[-1]
        assert last["refused"] == "SafetyError"
        assert "output" not in last


def test_token_ids_can_be_inputs(log):
    class Counts(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(x, 5).sum(1).double()

    rule = gl.torch.InputRule(shape=(None, None), dtype=torch.int64, low=0, high=4)
    safe = gl.torch.SafeModel(Counts(), "triage", rule, REVIEW, log)
    assert safe(torch.tensor([[1, 3, 3]])).prediction.classes.tolist() == [3]
    with pytest.raises(InputRefusedError, match=r"1 values of the input lie outside 0 \.\. 4"):
        safe(torch.tensor([[1, 5]]))


def test_critical_tasks_use_deterministic_algorithms(log):
    class Asks(torch.nn.Module):
        def forward(self, x):
            modes.append((torch.are_deterministic_algorithms_enabled(), gl.torch.is_deterministic(), self.training))
            return x

    modes = []
    for task in ("diagnostic", "research"):
        gl.torch.SafeModel(Asks(), task, RULE, REVIEW, log)(torch.zeros(1, 4))
    assert modes == [(True, True, False), (False, False, True)]


def test_critical_tasks_run_in_eval_mode_and_modes_come_back(device, log):
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5), gl.torch.Dropout(0.5, device)
    )
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    safe = gl.torch.SafeModel(model, "diagnostic", RULE, REVIEW, log)
    safe(torch.randn(3, 4))
    assert [module.training for module in model] == [False, True, True, True]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.full((2, 4), math.nan), "8 values of the input are NaN"),
        (torch.full((2, 4), math.inf), "NaN or infinite"),
        (torch.full((2, 4), 11.0), "8 values of the input lie outside -10 .. 10"),
        (torch.zeros(2, 5), "shape"),
        (torch.zeros(4), "shape"),
        (torch.zeros(0, 4), "empty"),
        (torch.zeros(2, 4, dtype=torch.float64), "float64"),
        (torch.zeros(2, 4).to_sparse(), "dense"),
        ([[0.0] * 4], "list"),
        (None, "NoneType"),
    ],
)
def test_bad_inputs_never_reach_the_model(log, inputs, words):
    class Never(torch.nn.Module):
        def forward(self, x):
            pytest.fail("the model saw the input")

    safe = gl.torch.SafeModel(Never(), "diagnostic", RULE, REVIEW, log)
    with pytest.raises(InputRefusedError, match=words):
        safe(inputs)
    assert [line["refused"] for line in lines(log)] == ["InputRefusedError"]
    assert gl.torch.verify_audit(log.path).lines == 1


@pytest.mark.parametrize(
    ("output", "returned", "words"),
    [
        ("logits", lambda x: x * math.nan, "NaN"),
        ("probabilities", lambda x: x[:, :2] + 0.6, "add up to"),
        ("probabilities", lambda x: x[:, :2] + torch.tensor([1.5, -0.5]), "least"),
        ("logits", lambda x: x[:1], "1 cases, not 2"),
        ("logits", lambda x: x[:, 0], "shape"),
        ("logits", lambda x: "yes", "str"),
    ],
)
def test_bad_outputs_are_not_passed_on(log, output, returned, words):
    class Returns(torch.nn.Module):
        def forward(self, x):
            return returned(x)

    safe = gl.torch.SafeModel(Returns(), "diagnostic", RULE, REVIEW, log, output=output)
    with pytest.raises(OutputRefusedError, match=words):
        safe(torch.zeros(2, 4))
    assert [line["refused"] for line in lines(log)] == ["OutputRefusedError"]


def test_a_model_that_breaks_is_logged_and_its_error_goes_on(log):
    class Breaks(torch.nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gl.torch.SafeModel(Breaks(), "triage", RULE, REVIEW, log)(torch.zeros(2, 4))
    assert lines(log)[0]["refused"] == "ZeroDivisionError"


def test_the_line_of_a_call(model, log, device):
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    safe = gl.torch.SafeModel(model, "research", RULE, gl.torch.ReviewRule(min_confidence=2.0), log, n_draws=3)
    answers = [safe(x), safe(x)]
    first, second = lines(log)
    assert gl.torch.verify_audit(log.path).head == answers[1].line == second["hash"]
    assert first["model"] == second["model"]
    assert first["input"] == second["input"] == fingerprint(x)
    assert first["output"] == fingerprint(answers[0].prediction.probabilities)
    assert (first["cases"], first["to_review"], first["n_draws"], first["task"]) == (2, 2, 3, "research")
    sampler = model[0].bits.sampler
    assert first["devices"] == [{"address": "sim://ideal", "seed": sampler.seed, "calls": 0}]
    assert second["devices"][0]["calls"] == 1
    with torch.no_grad():
        model[1].bias[0] += 1e-6
    safe(x)
    assert lines(log)[-1]["model"] != first["model"]
    with torch.no_grad():
        model[1].bias[0] -= 1e-6
    # from its line a call can be repeated
    sampler.load_state_dict({name: first["devices"][0][name] for name in ("seed", "calls")})
    assert torch.allclose(safe(x).prediction.probabilities, answers[0].prediction.probabilities, atol=1e-6)
    # nothing of the input is in the file
    text = log.path.read_text()
    assert all(repr(value) not in text for value in (round(number, 4) for number in x.flatten().tolist()))


def test_no_line_no_answer(model, log):
    safe = gl.torch.SafeModel(model, "diagnostic", RULE, REVIEW, log)
    safe(torch.zeros(1, 4))
    with log.path.open("ab") as file:
        file.write(b"torn")
    with pytest.raises(StoreCorruptError, match="no end"):
        safe(torch.zeros(1, 4))
    log.repair()
    safe(torch.zeros(1, 4))
    assert gl.torch.verify_audit(log.path).lines == 3


def test_advice(log):
    seen = gl.torch.SeenRange.of(torch.tensor([[-1.0, -1, -1, -1], [1, 1, 1, 1], [0, 0, 0, 0]]))
    rule = gl.torch.ReviewRule(min_confidence=0.5, max_entropy=1.0, seen=seen)
    safe = gl.torch.SafeModel(torch.nn.Identity(), "diagnostic", RULE, rule, log)
    x = torch.tensor([[0.0, 0, 0, 0], [9, 0, 0, 0], [1, -1, -1, -1], [0, 5, -5, 0]])
    advice = safe(x).advice
    assert [one.review for one in advice] == [True, True, False, True]
    assert advice[0].reasons == ("confidence 0.25 is below 0.5", "entropy 1.386 nats is above 1")
    assert advice[1].reasons == ("1 features lie outside the range of the 3 cases seen",)
    assert str(advice[2]) == "no threshold was passed"
    assert str(advice[3]).startswith("review by a person: 2 features lie outside")
    assert lines(log)[-1]["to_review"] == 3


def test_a_new_case_lies_outside_the_seen_range_as_often_as_stated():
    n, generator = 19, torch.Generator().manual_seed(2)
    outside = [
        int(
            gl.torch.SeenRange.of(torch.randn(n, 1, generator=generator)).n_outside(
                torch.randn(1, 1, generator=generator)
            )
        )
        for _ in range(2000)
    ]
    assert abs(sum(outside) / 2000 - 2 / (n + 1)) < 5 * math.sqrt(0.1 * 0.9 / 2000)  # 5 standard errors


def test_a_model_that_overwrites_its_input_hides_nothing(log):
    class Overwrites(torch.nn.Module):
        def forward(self, x):
            return x.zero_()

    seen = gl.torch.SeenRange.of(torch.tensor([[-1.0] * 4, [1.0] * 4]))
    safe = gl.torch.SafeModel(Overwrites(), "diagnostic", RULE, gl.torch.ReviewRule(seen=seen), log)
    x = torch.full((1, 4), 9.0)
    assert safe(x).advice[0].review
    assert float(x.min()) == 9


def test_advice_by_mutual_information(device, log):
    model = torch.nn.Sequential(gl.torch.BinaryLayer(device), torch.nn.Linear(4, 2))
    torch.nn.init.constant_(model[1].bias, 0.0)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[8.0, 0, 0, 0], [-8.0, 0, 0, 0]]))
        model[1].bias.copy_(torch.tensor([-4.0, 4.0]))
    rule = gl.torch.ReviewRule(max_mutual_information=0.1)
    safe = gl.torch.SafeModel(model, "research", RULE, rule, log, n_draws=100)
    drawn, sure = safe(torch.tensor([[0.0, 0, 0, 0], [10, 0, 0, 0]])).advice
    assert drawn.reasons[0].startswith("mutual information")
    assert not sure.review  # its bit is 1 but with probability 5e-5 a draw


def test_what_cannot_be_meant_is_refused(model, log):
    safe = gl.torch.SafeModel
    with pytest.raises(InvalidModelError, match="critical are diagnostic"):
        safe(model, "diagnosis", RULE, REVIEW, log)
    with pytest.raises(InvalidModelError, match="n_draws must be 1"):
        safe(model, "dosage", RULE, REVIEW, log, n_draws=2)
    with pytest.raises(InvalidModelError, match="mutual information"):
        safe(model, "research", RULE, gl.torch.ReviewRule(max_mutual_information=0.1), log)
    with pytest.raises(InvalidModelError, match="probabilities"):
        safe(model, "research", RULE, REVIEW, log, output="odds")
    with pytest.raises(InvalidModelError, match="threshold"):
        gl.torch.ReviewRule()
    with pytest.raises(InvalidModelError, match="NaN"):
        gl.torch.ReviewRule(max_entropy=math.nan)
    with pytest.raises(InvalidModelError, match="above high"):
        gl.torch.InputRule((None,), low=1.0, high=0.0)
    with pytest.raises(InvalidModelError, match="batch"):
        gl.torch.InputRule(())
    with pytest.raises(InvalidModelError, match="two cases"):
        gl.torch.SeenRange.of(torch.zeros(1, 4))
    with pytest.raises(InvalidModelError, match="cannot be compared"):
        gl.torch.SeenRange.of(torch.zeros(2, 4)).n_outside(torch.zeros(2, 1))


def test_fingerprints():
    tensor = torch.arange(6.0).reshape(2, 3)
    same = [tensor, tensor.T.contiguous().T, tensor.clone().requires_grad_()]
    assert len({fingerprint(one) for one in same}) == 1
    values = [
        tensor,
        tensor.reshape(3, 2),
        tensor.T,
        tensor.double(),
        tensor.bfloat16(),
        torch.tensor(0.0),
        torch.tensor(-0.0),
        torch.zeros(0),
        torch.tensor([True]),
        None,
        1,
        1.0,
        True,
        "1",
        [],
        {},
        [1],
        [[1]],
        {"a": 1},
        ["a", 1],
    ]
    assert len({fingerprint(one) for one in values}) == len(values)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    with pytest.raises(InvalidModelError, match="cannot be hashed"):
        fingerprint(object())


def test_the_models_state_covers_buffers_and_shares(model):
    from glauber.torch.safety import _state

    before = fingerprint(_state(model))
    model(torch.zeros(1, 4))
    assert fingerprint(_state(model)) == before  # a draw is no change
    model[0].bits.share = 0.5
    assert fingerprint(_state(model)) != before
    model[0].bits.share = 1.0
    model.register_buffer("hidden", torch.zeros(1), persistent=False)
    assert fingerprint(_state(model)) != before
