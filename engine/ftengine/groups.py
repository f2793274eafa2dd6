"""The optimizer's parameter groups: which learning rate and which weight decay each parameter gets.

The groups are a partition of all parameters of the model, trainable or not, and stay what they are: to freeze or
unfreeze flips flags and changes no group.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from ftengine.config_refs import LrRule, OptimizerRef
from ftengine.errors import FtengineError, nearest
from ftengine.model import NORMS, Model
from ftengine.optimizers import Optimizer

SPARED = (
    "pos_embed*",
    "pos_embedding*",
    "position_embedding*",
    "absolute_pos_embed*",
    "cls_token",
    "class_token",
    "dist_token",
    "reg_token",
    "register_tokens",
    "mask_token",
    "layer_scale*",
    "logit_scale*",
)
"""Last parts of names in timm and torchvision: learned positions and tokens, and scales whatever their shape."""


def parameter_groups(model: Model, options: Optimizer, ref: OptimizerRef) -> list[dict[str, Any]]:
    """Groups for a torch optimizer; each parameter of `model` is in exactly one, in the order of `parameter_names`.

    A group's keys are `params`; `name`, unique: that of the stage or head, with what sets the group apart where the
    stage has several, as in ``c4 (no decay)`` or ``c4 (rules[0])``; `stage`; `lr` and `base_lr`, the rate before any
    schedule; `weight_decay`; and `since`, the epoch at which it was unfrozen, 0 where it was not frozen before.

    The rate is that of the place (:func:`stage_rates`) or, by a rule, `lr` times the rule's `lr_mult`. A rule's
    weight decay counts also for what ``decay: weights`` would spare.

    Raises FtengineError for a rule that no parameter is left for, or that the optimizer cannot follow.
    """
    names = model.parameter_names()
    chosen = _chosen(ref.rules, names, model)
    _check(ref.rules, options)
    by_place = stage_rates(model, options.lr, ref)
    spared = undecayed(model) if ref.decay == "weights" and options.weight_decay > 0 else set()
    stages = {
        id(parameter): stage for stage, parameters in model.stage_parameters().items() for parameter in parameters
    }
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for name, parameter in names.items():
        stage, index = stages[id(parameter)], chosen.get(name)
        rate, decay, marks = by_place[stage], options.weight_decay, []
        if index is not None:
            rule = ref.rules[index]
            marks.append(f"rules[{index}]")
            rate = rate if rule.lr_mult is None else options.lr * rule.lr_mult
            decay = decay if rule.weight_decay is None else rule.weight_decay
        if name in spared and (index is None or ref.rules[index].weight_decay is None):
            marks.append("no decay")
            decay = 0.0
        group = {"params": [], "name": "", "stage": stage, "lr": rate, "base_lr": rate, "weight_decay": decay}
        groups.setdefault((stage, ", ".join(marks)), group | {"since": 0.0})["params"].append(parameter)
    if not any(group["lr"] for group in groups.values()):
        raise FtengineError(
            "optimizer.rules: every learning rate is 0, so that nothing would train; leave a part without such a rule, "
            "or use `freeze`, which also saves the time"
        )
    several = [stage for stage, _ in groups]
    for (stage, mark), group in groups.items():
        group["name"] = f"{stage} ({mark})" if mark and several.count(stage) > 1 else stage
    return list(groups.values())


def stage_rates(model: Model, lr: float, ref: OptimizerRef) -> dict[str, float]:
    """The learning rate of each stage, head and loss, by place.

    A head or a loss has lr · head_lr_mult, a backbone stage lr · backbone_lr_mult · layer_decay^depth. The heads are
    at depth 0, the last stage at depth 1, and so on down, as in BEiT (Bao et al. 2022, after ELECTRA, Clark et al.
    2020) and in timm, with stages in place of blocks. As in timm, normalisation after the last block is at that block's
    depth: a stage without parameters, or with those of normalisation alone, does not count.
    """
    own, norms = model.stage_parameters(), _norms(model)
    layers = [stage for stage in model.backbone.stages if any(id(parameter) not in norms for parameter in own[stage])]
    decay, depth = 1.0 if ref.layer_decay is None else ref.layer_decay, len(layers)
    made = dict.fromkeys(own, lr * ref.head_lr_mult)
    for stage in model.backbone.stages:
        depth -= stage in layers[1:]
        made[stage] = lr * ref.backbone_lr_mult * decay**depth
    return made


def undecayed(model: Model) -> set[str]:
    """Names, as in `parameter_names`, of what ``decay: weights`` spares.

    These are all parameters of normalisation layers, all biases (also tables of them, as of relative positions),
    whatever else has at most one dimension (scales of layers, temperatures, slopes of PReLU), and by their names the
    positions and tokens that a transformer adds to its input, and scales of more dimensions. It is what timm's models
    list in `no_weight_decay` and torchvision's references spare, but for the small networks that compute Swin v2's
    position biases.
    """
    norms = _norms(model)

    def spared(name: str, parameter: nn.Parameter) -> bool:
        last = name.rpartition(".")[2]
        return (
            parameter.ndim <= 1
            or id(parameter) in norms
            or "bias" in last
            or any(fnmatch.fnmatchcase(last, glob) for glob in SPARED)
        )

    return {name for name, parameter in model.parameter_names().items() if spared(name, parameter)}


def rates(groups: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Learning rates before any schedule and weight decays of each stage in which something trains, to be shown.

    Each is one number, ``1.00e-04``, or where the stage's trainable groups differ the least and the greatest,
    ``1.00e-04 … 1.00e-03``.
    """
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for group in groups:
        if any(parameter.requires_grad for parameter in group["params"]):
            stages.setdefault(group["stage"], []).append(group)
    return {
        stage: (_range([group["base_lr"] for group in own]), _range([group["weight_decay"] for group in own]))
        for stage, own in stages.items()
    }


def _norms(model: Model) -> set[int]:
    """The ids of the parameters of normalisation layers."""
    modules = [module for module in model.modules() if isinstance(module, NORMS)]
    return {id(parameter) for module in modules for parameter in module.parameters(recurse=False)}


def _range(values: Sequence[float]) -> str:
    return " … ".join(dict.fromkeys(f"{value:.2e}" for value in (min(values), max(values))))


def _chosen(rules: Sequence[LrRule], names: Iterable[str], model: Model) -> dict[str, int]:
    """The number of the first rule that matches, of each name that one matches."""
    chosen: dict[str, int] = {}
    wrong = []
    for index, rule in enumerate(rules):
        matched = [name for name in names if fnmatch.fnmatchcase(name, rule.params)]
        left = [name for name in matched if name not in chosen]
        if not matched:
            wrong.append(f"optimizer.rules[{index}].params: {_no_match(rule.params, list(names), model)}")
        elif not left:
            earlier = ", ".join(f"rules[{i}] ({rules[i].params!r})" for i in sorted({chosen[name] for name in matched}))
            wrong.append(
                f"optimizer.rules[{index}].params: all that {rule.params!r} matches is taken by {earlier}; the first "
                "rule that matches counts: put the narrower one first"
            )
        chosen |= dict.fromkeys(left, index)
    if wrong:
        raise FtengineError("\n".join(wrong))
    return chosen


def _no_match(glob: str, names: list[str], model: Model) -> str:
    stages = [stage for stage, parameters in model.stage_parameters().items() if parameters]
    text = f"{glob!r} matches no parameter"
    if glob in stages:
        return f"{text}; for all of {glob} write '{glob}.*'"
    # Where only the stage is misspelt, the same glob in the stage that was meant is the better hint.
    first, dot, rest = glob.partition(".")
    corrected = f"{nearest(first, [stage.partition('.')[0] for stage in stages])}{dot}{rest}"
    matches = any(fnmatch.fnmatchcase(name, corrected) for name in names)
    near = corrected if matches else nearest(glob.strip("*."), names)
    if near:
        return f"{text}; did you mean {near!r}?"
    return f"{text}; their names begin with: {', '.join(f'{stage}.' for stage in stages)}"


def _check(rules: Sequence[LrRule], options: Optimizer) -> None:
    name = options.torch_name.lower()
    for index, rule in enumerate(rules):
        if rule.weight_decay and "weight_decay" not in options.arguments():
            raise FtengineError(f"optimizer.rules[{index}].weight_decay: {name} has no weight decay; leave it out")
        if rule.lr_mult == 0 and name == "rprop":
            raise FtengineError(
                f"optimizer.rules[{index}].lr_mult: a learning rate of 0 holds nothing still with rprop, for which it "
                "is the size of the first step only; freeze these parameters instead"
            )
