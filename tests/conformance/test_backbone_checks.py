"""Each check of backbones, on a backbone that is right and on the same one, wrong in one way."""

import pytest
import torch

import ftengine.testing.kit as kit
from ftengine.testing.backbones import built
from ftengine.testing.subject import subjects

TINY = """
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from ftengine.errors import FtengineError, WeightsError
from ftengine.protocols import Backbone

class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1)
        self.norm = nn.BatchNorm2d(outputs)
        # block

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        return x

class Tiny(Backbone):
    # tiny
    note = "a Backbone as it is"

def thing(options, context):
    stages = {"c1": Block(3, 4), "c2": Block(4, 6), "c3": Block(6, 8)}
    channels = {"c1": 4, "c2": 6, "c3": 8}
    strides = {"c1": 2, "c2": 4, "c3": 8}
    more = {"url": None if context.weights is None else "https://example.org/tiny.pth"}
    # asked
    levels = context.levels or list(stages)
    levels = list(stages)[: 1 + max(list(stages).index(level) for level in levels)]
    # kept
    made = [{level: own[level] for level in levels if level in own} for own in (stages, channels, strides)]
    backbone = Tiny(*made, **more)
    # made
    return backbone
"""
SPEC = 'levels=("c1", "c2", "c3"), weights=("published",), default_weights="published"'

OWN = [check for check in kit.checks_for("backbone") if "backbone" in check.run.__module__]

BLOCK, FORWARD, TINY_BODY = "# block", "        return x\n", "# tiny"
ASKED, KEPT, MADE = "# asked", "# kept", "# made"

FAULTS = {
    "levels_as_declared": [
        (MADE, "del backbone.strides['c3']", "strides of c1, c2, c3, as of channels", "of c1, c2"),
        (
            MADE,
            "backbone.stages = nn.ModuleDict({name: stages[name] for name in ('c2', 'c1', 'c3')})",
            "stages called c1, c2, c3, in this order",
            "c2, c1, c3",
        ),
        (MADE, "backbone.channels, backbone.strides = {}, {}", "stages called none, in this order", "c1, c2, c3"),
        (MADE, "backbone.strides['c3'] = 0", "stride 0 for `pooled` and for no other level", "'c3': 0"),
        (
            TINY_BODY,
            "def forward(self, images): return dict(list(super().forward(images).items())[1:])",
            "that forward returns c1, c2, c3",
            "c2, c3",
        ),
    ],
    "channels_and_strides": [
        (
            MADE,
            "backbone.channels['c2'] = 5",
            "c2 (stride 4) as float32 [2, 5, 8, 8] for images of 32x32",
            "float32 [2, 6, 8, 8]",
        ),
        (MADE, "backbone.strides['c3'] = 16", "c3 (stride 16) as float32 [2, 8, 2, 2]", "float32 [2, 8, 4, 4]"),
        (
            MADE,
            "backbone.strides['c3'] = 4",
            "c3 (stride 4) larger by [1, 2] for images of 36x40 than of 32x32",
            "larger by [1, 1]",
        ),
        (FORWARD, "        return x.transpose(2, 3)\n", "c1 (stride 2) as float32 [1, 4, 20, 24]", "[1, 4, 24, 20]"),
        (
            TINY_BODY,
            "def feature(self, name, state, size): return state.squeeze(0)",
            "c1 (stride 2) as float32 [1, 4, 20, 24]",
            "[4, 20, 24]",
        ),
        (
            TINY_BODY,
            "def feature(self, name, state, size): return state.double()",
            "c1 (stride 2) as float32 [2, 4, 16, 16]",
            "float64 [2, 4, 16, 16]",
        ),
        (
            TINY_BODY,
            "def feature(self, name, state, size): return state[..., 6:, 6:]",
            "c1 (stride 2) as float32 [2, 4, 16, 16]",
            "float32 [2, 4, 10, 10]",
        ),
    ],
    "least_size": [
        (
            FORWARD,
            "        return F.max_pool2d(x, 3, 1)\n",
            "features of an image of 1x1 pixels, the least that it takes (min_size)",
            "RuntimeError: ",
        ),
        (
            TINY_BODY,
            "def feature(self, name, state, size): return state[..., 1:]",
            "features of an image of 1x1 pixels",
            "nothing in c1, c2",
        ),
    ],
    "stages_compose": [
        (
            TINY_BODY,
            "def forward(self, images): return super().forward(2 * images)",
            "from forward what the stages give one after the other",
            "c1 apart by ",
        ),
        (
            "x = self.norm(self.conv(x)).relu()",
            "x = self.norm(self.conv(x if x.shape[1] == 3 else x.mul_(0.5))).relu()",
            "from forward what the stages give one after the other",
            "c1 apart by ",
        ),
    ],
    "later_stages_left_out": [
        (
            KEPT,
            "levels = list(context.levels or stages)",
            "the levels c1, c2 when built for c2: only later ones are left out",
            "c2",
        ),
        (
            MADE,
            "if context.levels: backbone.strides['c1'] = 8",
            "strides of [2, 4] when built for c2, as of the whole",
            "[8, 4]",
        ),
        (
            ASKED,
            "if context.levels: stages['c1'] = nn.Sequential(stages['c1'])",
            "names and shapes of the whole's state dict when built for c2",
            "others: stages.c1.0.conv.weight, ",
        ),
        (
            ASKED,
            "if context.levels: stages['c1'].norm.eps = 1.0",
            "the features of the whole when built for c2",
            "c1 apart by ",
        ),
        (
            ASKED,
            "assert context.levels is None",
            "no error",
            "backbone 'wrong/thing' (plugin wrong) could not be built: AssertionError",
        ),
    ],
    "eval_features": [
        (
            FORWARD,
            "        return F.dropout(x, 0.1)\n",
            "the very same features of the same images in eval mode",
            "c1 apart by ",
        ),
        (
            "nn.BatchNorm2d(outputs)",
            "nn.BatchNorm2d(outputs, track_running_stats=False)",
            "features that do not depend on the other images, but for 0.0001 of a level's largest value",
            "c1 apart by ",
        ),
        (
            TINY_BODY,
            "def forward(self, images): return super().forward(images.sub_(0.5))",
            "images that are left as they were",
            "that forward writes into them",
        ),
    ],
    "finite_features": [
        (
            TINY_BODY,
            "def forward(self, images): return super().forward(images / images.std((1, 2, 3), keepdim=True))",
            "finite features in float32",
            "4096 of 8192 not, in c1",
        ),
        (
            FORWARD,
            "        return x / (torch.full((), 1.001, dtype=x.dtype) - 1)\n",
            "finite features in bfloat16 autocast",
            "8192 of 8192 not, in c1",
        ),
    ],
    "channels_last_features": [
        (
            FORWARD,
            "        return x.as_strided(x.shape, torch.empty(x.shape).stride())\n",
            "the same features in channels_last, but for 0.0001 of a level's largest value",
            "c1 apart by ",
        ),
        (FORWARD, "        return x.view(len(x), -1).view(x.shape)\n", "no error", "view size is not compatible"),
    ],
    "state_in_stages": [
        (
            MADE,
            "backbone.scale = nn.Parameter(torch.ones(1))",
            "all parameters and buffers in `stages`",
            "outside are scale",
        ),
        (
            MADE,
            "backbone.register_buffer('table', torch.ones(1))",
            "all parameters and buffers in `stages`",
            "outside are table",
        ),
    ],
    "same_seed_same_start": [
        (
            MADE,
            "nn.init.constant_(stages['c2'].norm.weight, np.random.rand())",
            "the same parameters from the same seed of torch",
            "others in stages.c2.norm.weight",
        ),
        (
            MADE,
            "nn.init.normal_(stages['c1'].conv.bias, std=np.random.default_rng().random())",
            "the same parameters from the same seed of torch",
            "others in stages.c1.conv.bias",
        ),
    ],
    "backbone_state_dict": [
        (
            MADE,
            "stages['c2'].table = torch.rand(1)\n"
            "    stages['c2'].register_forward_hook(lambda stage, inputs, output: output * stage.table)",
            "the very same features from a new one that has loaded the state dict",
            "c2 apart by ",
        ),
        (
            MADE,
            "stages['c2'].register_buffer('table', torch.rand(1), persistent=False)\n"
            "    stages['c2'].register_forward_hook(lambda stage, inputs, output: output * stage.table)",
            "the very same features from a new one that has loaded the state dict",
            "c2 apart by ",
        ),
        (
            BLOCK,
            "self.norm.register_buffer('running_mean', torch.zeros(outputs), persistent=False)",
            "the very same features from a new one that has loaded the state dict",
            "c1 apart by ",
        ),
        (
            MADE,
            "stages['c1'].register_buffer(f'of_{id(backbone)}', torch.ones(1))",
            "the same names in every state dict",
            "only in one: stages.c1.of_",
        ),
    ],
    "gradients_arrive": [
        (
            MADE,
            "stages['c2'].unused = nn.Linear(2, 2)",
            "a finite gradient at every parameter that trains, from all levels together",
            "none at stages.c2.unused.bias, stages.c2.unused.weight",
        ),
        (
            "self.norm(self.conv(x))",
            "self.norm(self.conv(x).detach())",
            "a finite gradient at every parameter that trains",
            "none at stages.c1.conv.bias, stages.c1.conv.weight, stages.c2.conv.bias",
        ),
        (
            TINY_BODY,
            "def train(self, mode=True):\n"
            "        if mode: self.stages['c1'].requires_grad_(False)\n"
            "        return super().train(mode)",
            "a finite gradient at every parameter that trains",
            "none at stages.c1.conv.bias, ",
        ),
        (
            FORWARD,
            "        return x + (x - x).sqrt()\n",
            "a finite gradient",
            "NaN or infinity at stages.c1.conv.bias, ",
        ),
        (
            TINY_BODY,
            "def feature(self, name, state, size): return state.detach()",
            "a finite gradient",
            "none at stages.c1",
        ),
    ],
    "frozen_stages_rest": [
        (
            TINY_BODY,
            "def train(self, mode=True): return super().train(mode).requires_grad_(True)",
            "no gradient and no change in c1 when they are frozen",
            "a gradient at stages.c1.conv.bias, ",
        ),
        (
            TINY_BODY,
            "def forward(self, images):\n"
            "        self.stages['c1'].requires_grad_(True)\n"
            "        return super().forward(images)",
            "no gradient and no change in c1 when they are frozen",
            "a gradient at stages.c1.conv.bias, ",
        ),
        (
            MADE,
            "stages['c1'].register_buffer('seen', torch.zeros(1))\n"
            "    stages['c1'].register_forward_hook(lambda stage, inputs, output: stage.seen.add_(1.0) and None)",
            "no gradient and no change in c1 when they are frozen",
            "that stages.c1.seen changed in training mode",
        ),
        (
            "        x = self.norm(self.conv(x)).relu()",
            "        with torch.no_grad(): self.conv.weight.mul_(0.99)\n        x = self.norm(self.conv(x)).relu()",
            "no gradient and no change in c1 when they are frozen",
            "that stages.c1.conv.weight changed in training mode",
        ),
        (
            TINY_BODY,
            "def forward(self, images):\n"
            "        with torch.set_grad_enabled(all(own.requires_grad for own in self.parameters())):\n"
            "            return super().forward(images)",
            "a finite gradient at every parameter that trains",
            "none at stages.c2.conv.bias, ",
        ),
    ],
    "published_weights": [
        (
            MADE,
            "backbone.url = None",
            "a url with the weights published",
            "none",
        ),
        (
            ASKED,
            "more['mean'] = (123.7, 116.3, 103.5)",
            "three numbers of pixels in 0..1 as mean",
            "(123.7, 116.3, 103.5)",
        ),
        (ASKED, "more['std'] = (0.2, 0.2)", "three numbers of pixels in 0..1 as std", "(0.2, 0.2)"),
        (ASKED, "more['std'] = (0.2, 0.2, 0)", "three numbers of pixels in 0..1 as std", "(0.2, 0.2, 0.0)"),
        (
            ASKED,
            "more['std'] = (0.2, 0.2, 0.2 if context.weights is None else float('nan'))",
            "three numbers of pixels in 0..1 as std with the weights published",
            "nan",
        ),
        (
            ASKED,
            "more['published'] = {'c1.conv.weight': 'conv1.weight'}",
            "names of its state dict in `published`",
            "c1.conv.weight, which are none",
        ),
        (
            ASKED,
            "more['published'] = {f'stages.{level}.conv.bias': 'bias' for level in ('c1', 'c2')}",
            "a published name for one tensor each",
            "several tensors for bias",
        ),
        (
            ASKED,
            "more |= {'published': {'stages.c1.conv.bias': 'bias'}, 'discarded': ('bias', 'fc.bias')}",
            "names that are not used in `discarded`",
            "bias, which are used",
        ),
        (
            ASKED,
            "if context.weights: raise WeightsError('no weights called published')",
            "no error",
            "no weights called published",
        ),
    ],
}

CASES = [
    pytest.param(check, *fault, id=f"{check}-{number}")
    for check, faults in FAULTS.items()
    for number, fault in enumerate(faults)
]


@pytest.mark.parametrize(("check", "place", "source", "expected", "found"), CASES)
def test_a_backbone_that_is_wrong_in_one_way_fails_the_check(result, check, place, source, expected, found):
    assert TINY.count(place) == 1
    outcome = result(check, "backbone", TINY.replace(place, source), SPEC)
    assert outcome.status == "failed"
    assert outcome.expected.startswith(expected)
    assert found in outcome.found


def test_every_check_of_backbones_has_a_backbone_that_fails_it():
    assert set(FAULTS) == {check.name for check in OWN}


def outcomes(subject):
    return {check.name: kit.run_check(check, subject) for check in OWN}


def test_a_backbone_that_is_right_passes_all_of_them(component):
    state = torch.get_rng_state()
    found = outcomes(component("backbone", TINY, SPEC))
    assert {result.status: result.text for result in found.values()}.keys() == {"ok"}
    assert torch.equal(torch.get_rng_state(), state)


def test_the_checks_find_the_same_in_any_order(component):
    subject = component("backbone", TINY, SPEC)
    before = {name: tensor.clone() for name, tensor in built(subject).state_dict().items()}
    for check in reversed(OWN):
        assert kit.run_check(check, subject).status == "ok"
    backbone = built(subject)
    assert not any(module.training for module in backbone.modules())
    assert all(own.requires_grad and own.grad is None for own in backbone.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_network_for_one_size_is_checked_at_the_size_of_its_run(component):
    code = TINY.replace(
        "# tiny",
        """
    def forward(self, images):
        assert images.shape[-2:] == (48, 40)
        return super().forward(images)
    """,
    )
    found = outcomes(component("backbone", code, SPEC, changes={"image": {"size": [48, 40]}}))
    assert {name for name, one in found.items() if one.status != "ok"} == {"channels_and_strides", "least_size"}


@pytest.mark.parametrize("begin", ["zeros_(stages['c3'].norm.weight)", "constant_(stages['c3'].norm.weight, 1e-6)"])
def test_a_branch_that_begins_shut_is_opened_to_see_into_it(result, begin):
    code = TINY.replace("self.conv(x)", "self.conv(F.dropout(x, 0.5) if x.shape[1] == 6 else x)")
    outcome = result("eval_features", "backbone", code.replace("# made", f"nn.init.{begin}"), SPEC)
    assert outcome.expected == "the very same features of the same images in eval mode"
    assert outcome.found.startswith("c3 apart by ")


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("later_stages_left_out", "c1 is its only level"),
        ("frozen_stages_rest", "all its parameters are in c1"),
    ],
)
def test_one_level_has_no_later_stages_and_nothing_to_freeze(result, check, reason):
    code = TINY.replace('{"c1": Block(3, 4), "c2": Block(4, 6), "c3": Block(6, 8)}', '{"c1": Block(3, 4)}')
    outcome = result(check, "backbone", code, 'levels=("c1",)')
    assert (outcome.status, outcome.reason) == ("left out", reason)


def test_what_does_not_train_need_not_be_reached(component):
    code = TINY.replace(
        "# made", "stages['c1'].requires_grad_(False)\n    stages['c1'].table = nn.Parameter(torch.ones(2), False)"
    )
    found = outcomes(component("backbone", code, SPEC))
    assert {result.status for result in found.values()} == {"ok"}


def test_the_memory_format_is_left_out_where_it_is_not_declared(result):
    code = TINY.replace("# asked", "more['channels_last'] = False")
    assert result("channels_last_features", "backbone", code, SPEC).reason == "it says channels_last=False"


@pytest.mark.parametrize(
    ("levels", "expected", "found"),
    [
        ('"c2", "c1", "c3"', "levels of the spec, in its order (c2, c1, c3)", "c1, c2, c3"),
        ('"c1", "c2"', "levels of the spec, in its order (c1, c2)", "c1, c2, c3"),
        (
            '"c1", "c2", "c3", "c4"',
            "the level c4, which the spec declares, or an FtengineError that names it",
            "'c4' is not",
        ),
    ],
)
def test_levels_that_differ_from_the_spec(result, levels, expected, found):
    outcome = result("levels_as_declared", "backbone", TINY, f"levels=({levels},)")
    assert outcome.status == "failed"
    assert outcome.expected.startswith(expected)
    assert found in outcome.found


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("if 'c4' in (context.levels or ()): raise FtengineError('no level c4 at this width')", "ok"),
        ("if 'c4' in (context.levels or ()): raise FtengineError('that is too many levels')", "failed"),
        ("context = type(context)(context.weights, None)", "failed"),
    ],
)
def test_a_level_that_depends_on_the_options_is_refused_by_name(result, source, status):
    code = TINY.replace("# asked", source)
    outcome = result("levels_as_declared", "backbone", code, 'levels=("c1", "c2", "c3", "c4")')
    assert outcome.status == status


def with_descriptor(grid):
    pooled = f'stages["pooled"], channels["pooled"], strides["pooled"] = nn.AdaptiveAvgPool2d({grid}), 8, 0'
    return TINY.replace("# asked", pooled), 'levels=("c1", "c2", "c3", "pooled")'


def test_a_descriptor_is_a_level_without_a_grid(component):
    found = outcomes(component("backbone", *with_descriptor(grid=1)))
    assert {one.status for one in found.values()} == {"ok"}


def test_a_descriptor_with_a_grid_is_none(result):
    outcome = result("channels_and_strides", "backbone", *with_descriptor(grid=2))
    assert outcome.expected == "pooled (stride 0) as float32 [2, 8, 1, 1] for images of 32x32"
    assert outcome.found == "float32 [2, 8, 2, 2]"


def test_weights_that_only_a_library_knows_need_not_be_there(result):
    code = TINY.replace("# asked", "if context.weights: raise WeightsError('this network has none')")
    spec = 'levels=("c1", "c2", "c3"), default_weights="default", open_weights=True'
    assert result("published_weights", "backbone", code, spec).status == "ok"


def test_a_factory_that_computes_with_values_is_run(result):
    code = TINY.replace("# asked", "more['std'] = torch.linspace(0.2, 0.3, 3).tolist()")
    assert result("run_is_finite", "backbone", code, SPEC).status == "ok"


def test_only_the_latest_backbone_is_kept_and_it_is_the_subjects_own(component):
    first = component("backbone", TINY, SPEC)
    (second,) = subjects("wrong")
    assert built(first) is built(first)
    assert built(second) is not built(first)
    assert built.cache_info().currsize == 1
