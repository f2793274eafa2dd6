from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ftengine.errors import FtengineError
from ftengine.protocols import Batch, Frame, LossContext
from ftengine_regression import losses
from ftengine_regression.options import HuberOptions, LossOptions

OUTPUT = torch.tensor([[0.5, -1.0], [2.0, 0.25], [0.0, 3.0]])
TARGETS = torch.tensor([[0.0, 1.0], [0.5, 0.0], [0.0, -1.0]])
ERROR = (OUTPUT - TARGETS).double().numpy()
BATCH = Batch(images=torch.zeros(3, 3, 2, 2), targets={}, ids=list("abc"), frames=[Frame.whole(2, 2)] * 3)
CONTEXT = LossContext(task=SimpleNamespace(names=("price", "rooms")))


def huber_errors(delta):
    size = np.abs(ERROR)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


CASES = [
    ("mse", LossOptions, {}, ERROR**2),
    ("l1", LossOptions, {}, np.abs(ERROR)),
    ("huber", HuberOptions, {}, huber_errors(1.0)),
    ("huber", HuberOptions, {"delta": 2.0}, huber_errors(2.0)),
]


def value(loss, output=OUTPUT):
    terms = loss({"standardized": output, "standardized_targets": TARGETS}, BATCH)
    assert list(terms) == [loss.name]
    return terms[loss.name]


@pytest.mark.parametrize(("name", "options", "given", "errors"), CASES)
def test_the_mean_over_images_and_targets(name, options, given, errors):
    loss = getattr(losses, name)(options(**given), CONTEXT)
    assert loss.name == name
    assert value(loss).item() == pytest.approx(errors.mean(), rel=1e-6)


@pytest.mark.parametrize(("name", "options", "given", "errors"), CASES)
@pytest.mark.parametrize(("weights", "expected"), [([1.0, 3.0], [1, 3]), ({"rooms": 4.0}, [1, 4])])
def test_weights_make_a_weighted_mean_over_targets(name, options, given, errors, weights, expected):
    loss = getattr(losses, name)(options(weights=weights, **given), CONTEXT)
    assert value(loss).item() == pytest.approx(np.average(errors.mean(0), weights=expected), rel=1e-6)
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"prices": 2.0}, "mse: weights: unknown target 'prices'; did you mean 'price'?"),
        ([1.0], "mse: weights: 1 weights for 2 targets; expected one for each of: price, rooms"),
    ],
)
def test_weights_that_do_not_fit(weights, message):
    with pytest.raises(FtengineError) as caught:
        losses.mse(LossOptions(weights=weights), CONTEXT)
    assert message in str(caught.value)


def test_options_out_of_range_are_refused():
    with pytest.raises(ValidationError, match="delta"):
        HuberOptions(delta=0)
    with pytest.raises(ValidationError, match="weights"):
        LossOptions(weights=[-1.0, 1.0])


@pytest.mark.parametrize(("name", "options", "given", "errors"), CASES)
def test_bf16_outputs_are_compared_in_float32(name, options, given, errors):
    output = (OUTPUT * 1000).bfloat16().requires_grad_()
    loss = getattr(losses, name)(options(**given), CONTEXT)
    term = value(loss, output)
    assert term.dtype == torch.float32
    torch.testing.assert_close(term, value(loss, output.detach().float()))
    term.backward()
    assert output.grad.isfinite().all()
    assert output.grad.abs().sum() > 0


def test_the_gradient_of_mse():
    output = OUTPUT.clone().requires_grad_()
    value(losses.mse(LossOptions(), CONTEXT), output).backward()
    np.testing.assert_allclose(output.grad.numpy(), 2 * ERROR / ERROR.size, rtol=1e-6)
