"""l2_sp and l1 against their formulas, by hand and by autograd."""

import pytest
import torch
from pydantic import ValidationError

from ftengine.errors import FtengineError
from ftengine.protocols import RegularizerContext
from ftengine_regularizers.plugin import L1Options, L2SpOptions
from ftengine_regularizers.weights import L1, L2Sp


def parameters(seed=0):
    """Weights of two stages and a head."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"c1.0.weight": (4, 3, 3, 3), "c1.1.bias": (4,), "c2.weight": (5, 4), "head.fc.weight": (2, 5)}
    return {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}


def context(start, **options):
    def backbone():
        raise AssertionError("the weights are enough")

    start = {name: value.detach().clone() for name, value in start.items()}
    return RegularizerContext(start, backbone, ("c1", "c2"), **options)


def l2_sp(start, **options):
    return L2Sp(L2SpOptions(**options), context(start))


def term(regularizer, weights):
    ((_, value),) = regularizer.of_weights(weights).items()
    assert value.shape == ()
    return value


# --- l2_sp -------------------------------------------------------------------------------------------------------


def test_l2_sp_by_hand():
    start = {"c1.weight": torch.tensor([1.0, 2.0]), "head.fc.weight": torch.tensor([5.0])}
    now = {"c1.weight": torch.tensor([1.5, 0.0]), "head.fc.weight": torch.tensor([3.0])}
    for value in now.values():
        value.requires_grad_()
    regularizer = l2_sp(start, backbone=0.2, head=0.4)
    terms = regularizer.of_weights(now)
    assert terms.keys() == {"l2_sp"}
    assert float(terms["l2_sp"].detach()) == pytest.approx(0.1 * (0.25 + 4.0) + 0.2 * 9.0)
    terms["l2_sp"].backward()
    torch.testing.assert_close(now["c1.weight"].grad, torch.tensor([0.2 * 0.5, 0.2 * -2.0]))
    torch.testing.assert_close(now["head.fc.weight"].grad, torch.tensor([0.4 * 3.0]))


@pytest.mark.parametrize(("alpha", "beta"), [(0.01, 0.01), (3.0, 0.25), (0.5, 0.0), (0.0, 2.0)])
def test_l2_sp_has_the_gradient_of_its_formula(alpha, beta):
    start, now, same = parameters(seed=1), parameters(), parameters()
    stages = [name for name in same if name.startswith("c")]
    moved = torch.cat([(same[name] - start[name].detach()).flatten() for name in stages])
    formula = alpha / 2 * moved.norm() ** 2 + beta / 2 * same["head.fc.weight"].norm() ** 2
    formula.backward()
    value = term(l2_sp(start, backbone=alpha, head=beta), now)
    value.backward()
    torch.testing.assert_close(value.detach(), formula.detach())
    for name, parameter in now.items():
        expected = same[name].grad
        if beta == 0 and name == "head.fc.weight":
            assert parameter.grad is None, "what has no strength is not computed"
            assert not expected.any()
        elif alpha == 0 and name in stages:
            assert parameter.grad is None
            assert not expected.any()
        else:
            torch.testing.assert_close(parameter.grad, expected)
            assert parameter.grad.abs().min() > 0


def test_at_the_start_l2_sp_pulls_at_the_head_alone():
    start = parameters()
    now = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    value = term(l2_sp(start, backbone=1.0, head=0.5), now)
    assert float(value.detach()) == pytest.approx(0.25 * float(start["head.fc.weight"].detach().square().sum()))
    value.backward()
    assert not any(parameter.grad.any() for name, parameter in now.items() if name != "head.fc.weight")


def test_steps_along_l2_sp_alone_end_at_the_start_and_at_a_head_of_zeros():
    start, now = parameters(seed=1), parameters()
    regularizer = l2_sp(start, backbone=1.0, head=1.0)
    optimizer = torch.optim.SGD(now.values(), lr=0.5)
    for _ in range(40):
        optimizer.zero_grad()
        term(regularizer, now).backward()
        optimizer.step()
    for name, parameter in now.items():
        goal = torch.zeros_like(parameter) if name == "head.fc.weight" else start[name]
        torch.testing.assert_close(parameter.detach(), goal.detach(), atol=1e-6, rtol=0)


def test_l2_sp_counts_what_trains_alone():
    start, now = parameters(seed=1), parameters()
    regularizer = l2_sp(start, backbone=2.0, head=2.0)
    training = {name: now[name] for name in ("c2.weight", "head.fc.weight")}
    moved = (now["c2.weight"] - start["c2.weight"]).square().sum() + now["head.fc.weight"].square().sum()
    torch.testing.assert_close(term(regularizer, training), moved)
    only_head = {"head.fc.weight": now["head.fc.weight"]}
    torch.testing.assert_close(term(regularizer, only_head), now["head.fc.weight"].square().sum())
    assert l2_sp(start, backbone=1.0, head=0.0).of_weights(only_head) == {}


def test_the_heads_of_several_tasks_are_all_pulled_to_zero():
    names = ("c1.weight", "head.a.fc.weight", "head.b.fc.weight")
    start = {name: torch.full((2,), 3.0) for name in names}
    assert float(term(l2_sp(start, backbone=8.0, head=0.5), start)) == pytest.approx(2 * 0.25 * 18.0)


def test_the_start_moves_with_the_regularizer_but_is_not_saved_or_trained():
    regularizer = l2_sp(parameters())
    assert regularizer.state_dict() == {}
    assert list(regularizer.parameters()) == []
    moved = regularizer.to("meta")
    weights = {name: value.to("meta") for name, value in parameters().items()}
    assert term(moved, weights).device.type == "meta"


def test_l2_sp_is_in_float32_under_autocast_too():
    start = {"c1.weight": torch.full((1000,), 1.0)}
    now = {"c1.weight": torch.full((1000,), 1.0 + 2**-12).requires_grad_()}
    with torch.autocast("cpu", torch.bfloat16):
        value = term(l2_sp(start, backbone=2.0), now)
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(1000 * 2**-24), "in bfloat16 nothing would have moved"


def test_l2_sp_refuses_an_adapter_and_says_what_would_work():
    with pytest.raises(
        FtengineError, match=r"l2_sp: with an adapter .*leave l2_sp out .*feature_distill.*leave the adap"
    ):
        L2Sp(L2SpOptions(), context(parameters(), adapted=True))


@pytest.mark.parametrize("options", [{"backbone": 0, "head": 0}, {"backbone": -1}, {"head": -0.1}, {"haed": 1}])
def test_l2_sp_options_are_validated(options):
    with pytest.raises(ValidationError, match=r"both 0|greater than or equal to 0|Extra inputs"):
        L2SpOptions.model_validate(options)


# --- l1 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "expected"), [("all", 1.0 + 2.5 + 4.0 + 0.5), ("backbone", 1.0 + 2.5), ("head", 4.0 + 0.5)]
)
def test_l1_by_hand(part, expected):
    weights = {"c1.weight": torch.tensor([-1.0, 2.5]), "head.fc.bias": torch.tensor([4.0, 0.0, -0.5])}
    for value in weights.values():
        value.requires_grad_()
    regularizer = L1(L1Options(strength=0.1, part=part), context(weights))
    terms = regularizer.of_weights(weights)
    assert terms.keys() == {"l1"}
    assert float(terms["l1"].detach()) == pytest.approx(0.1 * expected)
    terms["l1"].backward()
    signs = {"c1.weight": [-0.1, 0.1], "head.fc.bias": [0.1, 0.0, -0.1]}
    for name, value in weights.items():
        if part == "all" or (part == "head") == name.startswith("head."):
            torch.testing.assert_close(value.grad, torch.tensor(signs[name]))
        else:
            assert value.grad is None


def test_l1_has_no_term_while_its_part_is_frozen():
    weights = {"head.fc.weight": torch.ones(3)}
    assert L1(L1Options(part="backbone"), context(weights)).of_weights(weights) == {}


def test_l1_works_with_an_adapter():
    weights = {"c1.lora_A.default.weight": torch.full((2,), -3.0)}
    regularizer = L1(L1Options(strength=1.0, part="backbone"), context(weights, adapted=True))
    assert float(term(regularizer, weights)) == 6.0


@pytest.mark.parametrize("options", [{"strength": 0}, {"strength": -1}, {"part": "loss"}])
def test_l1_options_are_validated(options):
    with pytest.raises(ValidationError):
        L1Options.model_validate(options)
