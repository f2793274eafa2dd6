"""feature_distill: its formula, its teacher, and where its gradient goes."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from ftengine.errors import FtengineError
from ftengine.protocols import Backbone, RegularizerContext
from ftengine_regularizers.features import FeatureDistill
from ftengine_regularizers.plugin import FeatureDistillOptions


class Net(Backbone):
    """Three stages, one of which is no level; `runs` counts the passes of each."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(
            {
                "stem": nn.Conv2d(3, 4, 3, 2, 1),
                "c2": nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.Dropout(0.5)),
                "c3": nn.Conv2d(6, 8, 3, 2, 1),
                "c4": nn.Conv2d(8, 2, 1),
            },
            {"c2": 6, "c3": 8, "c4": 2},
            {"c2": 4, "c3": 8, "c4": 8},
        )


class Setting:
    """A student, the regularizer with its teacher, and the stages that each pass of the teacher ran."""

    def __init__(self, **options):
        self.student = Net().eval()
        self.ran = []

        def backbone():
            teacher = copy.deepcopy(self.student).requires_grad_(False)
            for name, stage in teacher.stages.items():
                stage.register_forward_hook(lambda *_, name=name: self.ran.append(name))
            self.teacher = teacher
            return teacher

        context = RegularizerContext({}, backbone, self.student.levels)
        self.regularizer = FeatureDistill(FeatureDistillOptions(**options), context)
        self.images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def terms(self, images=None):
        images = self.images if images is None else images
        return self.regularizer.of_features(images, self.student(images))

    def term(self, images=None):
        terms = self.terms(images)
        assert terms.keys() == {"feature_distill"}
        value = terms["feature_distill"]
        assert (value.shape, value.dtype) == ((), torch.float32)
        return value


def test_it_is_zero_at_the_start_and_positive_after_a_change():
    setting = Setting()
    assert float(setting.term().detach()) == 0.0
    with torch.no_grad():
        setting.student.stages["c2"][2].weight.mul_(1.1)
    assert float(setting.term().detach()) > 0.0


def test_it_is_the_formula():
    setting = Setting(strength=0.7, levels=("c3", "c2"))
    original = copy.deepcopy(setting.student)
    with torch.no_grad():
        for parameter in setting.student.parameters():
            parameter.add_(0.1)
        before = original(setting.images)
        now = setting.student(setting.images)
    ratios = [float(((now[level] - before[level]) ** 2).sum() / (before[level] ** 2).sum()) for level in ("c2", "c3")]
    assert ratios[0] != pytest.approx(ratios[1], rel=0.1)
    assert float(setting.term().detach()) == pytest.approx(0.7 * sum(ratios) / 2, rel=1e-5)


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_features_of_another_scale_cost_the_same_whatever_the_level(factor):
    """Features scaled by k cost (k - 1)^2: in particular zeros cost 1."""
    for level, scale in (("c2", 1e-2), ("c3", 1.0), ("c4", 1e2)):
        setting = Setting(levels=(level,))
        originals = {name: value.detach() * scale for name, value in setting.student(setting.images).items()}
        setting.regularizer._teacher = (lambda _, originals=originals: originals,)
        features = {name: (value * factor).requires_grad_() for name, value in originals.items()}
        (value,) = setting.regularizer.of_features(setting.images, features).values()
        assert float(value.detach()) == pytest.approx((factor - 1) ** 2, rel=1e-5)


def test_an_original_of_zeros_stays_finite():
    setting = Setting()
    with torch.no_grad():
        setting.teacher.stages["c4"].weight.zero_()
        setting.teacher.stages["c4"].bias.zero_()
    value = setting.term()
    value.backward()
    assert value.isfinite()
    assert value > 1
    assert setting.student.stages["stem"].weight.grad.isfinite().all()


def test_the_gradient_reaches_the_student_only_and_points_home():
    setting = Setting(levels=("c3",))
    with torch.no_grad():
        setting.student.stages["c2"][2].weight.mul_(1.3)
    frozen = copy.deepcopy(setting.teacher.state_dict())
    value = setting.term()
    value.backward()
    for name, parameter in setting.student.named_parameters():
        assert (parameter.grad is None) == name.startswith("stages.c4."), "nothing above the level"
    assert all(parameter.grad is None for parameter in setting.teacher.parameters())
    assert not any(parameter.requires_grad for parameter in setting.teacher.parameters())
    optimizer = torch.optim.SGD(setting.student.parameters(), lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        setting.term().backward()
        optimizer.step()
    assert setting.term() < value / 2
    for name, tensor in setting.teacher.state_dict().items():
        assert torch.equal(tensor, frozen[name]), "the teacher never moves, nor do its statistics"


def test_the_teacher_is_in_eval_mode_whatever_is_called():
    setting = Setting(levels=("c2",))
    setting.regularizer.train()
    assert not any(module.training for module in setting.teacher.modules())
    assert float(setting.term().detach()) == float(setting.term().detach()) == 0.0, "no dropout"
    setting.student.train()
    assert setting.term() > 0, "batch statistics and dropout are the student's own"


def test_the_teacher_is_in_no_state_dict():
    regularizer = Setting().regularizer
    assert regularizer.state_dict() == {}
    assert list(regularizer.parameters()) == []


def test_the_teacher_sees_the_same_images():
    setting = Setting()
    mixed = 0.3 * setting.images + 0.7 * setting.images.flip(0)
    assert float(setting.term(mixed).detach()) == 0.0


@pytest.mark.parametrize(
    ("levels", "stages"),
    [(None, ["stem", "c2", "c3", "c4"]), (("c2",), ["stem", "c2"]), (("c3", "c2"), ["stem", "c2", "c3"])],
)
def test_stages_after_the_last_level_are_left_out(levels, stages):
    setting = Setting(levels=levels)
    setting.term()
    assert setting.ran == stages
    assert list(setting.teacher.stages) == stages
    assert setting.teacher.levels == tuple(stage for stage in stages if stage != "stem")
    assert list(setting.student.stages) == ["stem", "c2", "c3", "c4"]


def test_a_frozen_backbone_costs_nothing():
    setting = Setting(levels=("c2",))
    for stage in ("stem", "c2"):
        setting.student.stages[stage].requires_grad_(False)
    assert setting.terms() == {}
    assert setting.ran == []
    setting.student.stages["c2"].requires_grad_(True)
    assert float(setting.term().detach()) == 0.0


def test_the_difference_is_taken_in_float32_under_autocast():
    setting = Setting(levels=("c2", "c3"))
    with torch.no_grad():
        setting.student.stages["c2"][2].weight.mul_(1.2)
    full = setting.term()
    with torch.autocast("cpu", torch.bfloat16):
        low = setting.term()
    torch.testing.assert_close(low, full, rtol=0.05, atol=0)


def test_an_unknown_level_is_named_with_the_nearest():
    with pytest.raises(FtengineError) as error:
        Setting(levels=("c33", "c2", "stem"))
    message = str(error.value)
    assert message.startswith("feature_distill.levels: unknown level 'c33'; did you mean 'c3'?")
    assert "unknown level 'stem'" in message
    assert message.endswith("(the backbone's levels: c2, c3, c4)")


@pytest.mark.parametrize("options", [{"strength": 0}, {"levels": []}, {"levels": "c2"}, {"level": ["c2"]}])
def test_options_are_validated(options):
    with pytest.raises(ValidationError):
        FeatureDistillOptions.model_validate(options)
