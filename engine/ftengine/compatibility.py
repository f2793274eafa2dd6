"""Whether the parts of a run fit each other: data and task, head and backbone, loss and metrics and target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ftengine.config import Config, ImageConfig
from ftengine.config_refs import Ref, Weights
from ftengine.config_train import TrainConfig
from ftengine.document import Document, KeyPath
from ftengine.errors import FtengineError, name_list, unknown
from ftengine.host import Host
from ftengine.plan import Monitor, Part, TaskPlan
from ftengine.plugin import (
    BackboneSpec,
    DatasetOptions,
    DatasetSpec,
    Defaults,
    HeadSpec,
    LossSpec,
    MetricSpec,
    TaskSpec,
)
from ftengine.vocabulary import FITS, SPATIAL_FIELDS
from ftengine.weight_source import WeightSource, weight_source

Report = Callable[[KeyPath, str], None]
"""Takes a place in the config and what is wrong there."""


def target_field(host: Host, task: Part, data: Part | None, report: Report) -> tuple[str, Defaults]:
    """The first field that the task can learn from and the dataset provides."""
    targets: Mapping[str, Defaults] = task.spec.targets
    first = next(iter(targets.items()))
    if data is None:
        return first
    spec: DatasetSpec = data.spec
    assert isinstance(data.options, DatasetOptions)
    provided = data.options.target_fields()
    provided = frozenset(spec.fields) if provided is None else provided
    for name, defaults in targets.items():
        if name in provided:
            return name, defaults
    needs = " or ".join(f"`{name}`" for name in targets)
    able = any(name in spec.fields for name in targets)
    has = f"it provides {name_list(provided)}" + (" with these options" if able else "")
    message = f"{data.component.name} cannot feed {task.component.name}, which needs {needs}; {has}"
    if not able:
        feeding = [
            component.name
            for component in host.components
            if isinstance(component.spec, DatasetSpec) and set(component.spec.fields) & set(targets)
        ]
        message += f"; formats that do: {name_list(feeding)}"
    report(data.path, message)
    return first


def check_fit(
    host: Host,
    head: Part | None,
    losses: Sequence[Part | None],
    metrics: list[Part | None],
    target: str,
    backbone: Part | None,
    data: Part | None,
    report: Report,
) -> None:
    """Check the parts of a task against each other."""
    if backbone:
        check_input(host, backbone, head, data, target, report)
    if head and backbone:
        head_spec: HeadSpec = head.spec
        offered: BackboneSpec = backbone.spec
        lacking = [level for level in head_spec.levels if level not in offered.levels]
        if lacking:
            message = f"needs the levels {name_list(head_spec.levels)}, but {backbone.component.name} has no "
            report(head.path, message + name_list(lacking))
    for part in [*losses, *metrics]:
        if part is None:
            continue
        spec: LossSpec | MetricSpec = part.spec
        if spec.fields and target not in spec.fields:
            alternatives = [
                component.name
                for component in host.components
                if isinstance(component.spec, type(spec))
                and component.task == part.component.task
                and (not component.spec.fields or target in component.spec.fields)
            ]
            message = (
                f"{spec.name} learns from {name_list(spec.fields)}"
                if spec.kind == "loss"
                else (f"{spec.name} measures {name_list(spec.fields)}")
            )
            report(part.path, f"{message}, but the data give `{target}`; fitting: {name_list(alternatives)}")
        if isinstance(spec, LossSpec) and head and spec.heads and head.component.name not in spec.heads:
            report(part.path, f"{spec.name} is for the heads {name_list(spec.heads)}, not {head.component.name}")


def check_input(host: Host, backbone: Part, head: Part | None, data: Part | None, target: str, report: Report) -> None:
    """Data, backbone and head are all for images or all for clips, from which no places are learnt."""
    frames = None
    if data:
        assert isinstance(data.options, DatasetOptions)
        frames = data.options.clip_frames()
        given = "image" if frames is None else "clip"
        if backbone.spec.input != given:
            what = "images" if frames is None else f"clips of {frames} frame{'s' if frames > 1 else ''}"
            able = [item.name for item in host.select("backbone") if getattr(item.spec, "input", None) == given]
            message = f"{backbone.component.name} takes {backbone.spec.input}s, but {data.component.name} gives {what}"
            report(backbone.path, f"{message}; backbones for {given}s: {name_list(able)}")
            return
    if frames is not None and target in SPATIAL_FIELDS:
        assert data
        report(data.path, f"`{target}` is a place in an image, and cannot be learnt from clips")
    if head and head.spec.input != backbone.spec.input:
        wanted: str = backbone.spec.input
        able = [
            item.name
            for item in host.select("head")
            if item.task == head.component.task and getattr(item.spec, "input", None) == wanted
        ]
        message = f"{head.component.name} reads features of {head.spec.input}s, and {backbone.component.name} takes "
        report(head.path, f"{message}{wanted}s; heads of {head.component.task} for {wanted}s: {name_list(able)}")


def image_config(config: ImageConfig, tasks: Sequence[TaskPlan], report: Report) -> ImageConfig:
    """`config` with every value filled in, by the tasks' own where it is silent, and checked against the tasks."""
    spatial = [task for task in tasks if task.field in SPATIAL_FIELDS]
    spec: TaskSpec = (spatial or tasks)[0].task.spec
    fit = config.fit or spec.image_fit
    if fit == "crop" and spatial:
        able = name_list([one for one in FITS if one != "crop"])
        report(("image", "fit"), f"crop cuts off parts of an image that {spatial[0].name} must see; use one of {able}")
    if fit == "none":
        for key in ("size", "max_size"):
            if getattr(config, key) is not None:
                report(("image", key), "has no effect with `fit: none`, which leaves images as they are")
        return config.model_copy(update={"fit": fit})
    size = config.size or (spec.image_size, spec.image_size)
    longest = config.max_size
    if fit == "shorter":
        if size[0] != size[1]:
            report(("image", "size"), f"with `fit: shorter` it is one number, the shorter side; found {list(size)}")
        longest = longest or size[0] * 5 // 3
        if longest < size[0]:
            report(("image", "max_size"), f"{longest} is less than size, {size[0]}")
    elif longest is not None:
        report(("image", "max_size"), f"goes with `fit: shorter`, not {fit}")
    return config.model_copy(update={"fit": fit, "size": size, "max_size": longest})


def check_windows(window: object, tasks: Sequence[TaskPlan], report: Report) -> None:
    """Windows are for heads that can merge what they give for each."""
    for task in tasks:
        if window is not None and not task.head.spec.windows:
            name = task.head.component.name
            report(("image", "window"), f"the head {name} of {task.name} cannot put windows of an image together")


def pick_weights(
    backbone: Part | None,
    weights: Weights,
    tasks: Mapping[str, TaskPlan],
    document: Document,
    report: Report,
    *,
    trained: bool,
) -> WeightSource | None:
    """Where the backbone's weights come from: none of its own where a head brings them. `trained`: see `resolve`."""
    if backbone is None:
        return None
    bringing = [task for task in tasks.values() if task.head_weights is not None]
    if len(bringing) > 1:
        names = name_list([task.name for task in bringing])
        report(bringing[1].head.path, f"the heads of {names} each bring weights of the one backbone")
    if bringing:
        if weights.source != "none" and ("backbone", "weights") in document.origins:
            message = f"leave it out: the head's weights, {bringing[0].head_weights}, are the backbone's as well"
            report(("backbone", "weights"), message)
        return WeightSource("none")
    spec: BackboneSpec = backbone.spec
    try:
        return weight_source(weights, spec, backbone.component.name, present=not trained)
    except FtengineError as error:
        report(document.name_path(("backbone", "weights"), "source"), str(error))
        return None


def check_averages(train: TrainConfig, adapter: Ref | None, report: Report) -> None:
    """Mixed weights must be of a backbone whose own weights train."""
    if train.wise_ft is not None and adapter is not None:
        message = "the weights of the start and the end of a run with an adapter cannot be mixed: leave one of them out"
        report(("train", "wise_ft"), message)


def check_mix(config: Config, tasks: Sequence[TaskPlan], report: Report) -> None:
    """Mixed images are of one size, several a part, and need tasks whose targets and losses can be mixed with them."""
    fit, train = config.image.fit, config.train
    if config.mix is None:
        return
    if train.batch_size == train.accumulate:
        message = f"{train.batch_size} parts of one image each leave none to mix with (`mix`): use larger parts"
        report(("train", "accumulate"), message)
    if fit == "shorter":
        report(("image", "fit"), "images of unequal sizes cannot be mixed (`mix`); use crop, stretch or pad")
    for task in tasks:
        if task.field not in task.task.spec.soft:
            kind = task.task.component.name
            report(("mix",), f"the targets of {task.name} ({kind}, `{task.field}`) cannot be mixed between images")
            continue
        for loss, _ in task.losses:
            if not loss.spec.soft:
                report(("mix",), f"the loss {loss.component.name} of {task.name} does not take mixed labels")


def pick_monitor(wanted: str | None, tasks: Mapping[str, TaskPlan], joint: bool, report: Report) -> Monitor:
    """``loss``, ``accuracy`` or, in a joint run, ``<task>/accuracy``: the name in the config, or the logged one."""
    if wanted == "loss":
        return Monitor(None, None, "loss", "min", "loss")
    choices: dict[str, Monitor] = {}
    for name, task in tasks.items():
        for index, metric in enumerate(task.metrics):
            prefix = f"{name}/" if joint else ""
            keys = (metric.primary, *metric.spec.others)
            own = [Monitor(name, index, key, metric.spec.mode, prefix + key) for key in keys]
            choices.setdefault(prefix + metric.component.name, own[0])
            for monitor in own:
                choices.setdefault(monitor.name, monitor)
    if wanted is None:
        return next(iter(choices.values()))
    if wanted not in choices:
        report(("train", "monitor"), unknown("metric", wanted, ["loss", *choices]))
        return Monitor(None, None, "loss", "min", "loss")
    return choices[wanted]
