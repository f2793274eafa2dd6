"""What timm calls things: models, the tags of their weights, and the files these are in."""

from __future__ import annotations

from dataclasses import dataclass

import timm
from timm.models import PretrainedCfg, get_arch_pretrained_cfgs, get_pretrained_cfg, split_model_name_tag

from ftengine.errors import FtengineError, WeightsError, name_list, unknown


@dataclass(frozen=True)
class Source:
    """One model and, where it has any, one set of its weights.

    `url` and `file` are None where no weights were asked for; `file` is what the download is kept as.
    """

    architecture: str
    tag: str | None
    config: PretrainedCfg
    url: str | None
    file: str | None


def resolve(model: str, weights: str | None) -> Source:
    """The model and weights meant by the option `model` (``name`` or ``name.tag``) and a config's `weights`.

    `weights` is a tag, ``default`` for the tag in `model` or else timm's default one, or None for no published
    weights. Raises FtengineError for a model that timm does not have, and WeightsError for a tag that the model does
    not have, weights that are not published, or those in a format of their own; each with the nearest name.
    """
    architecture, tag = split_model_name_tag(model)
    if not timm.is_model(architecture):
        raise FtengineError(f"backbone timm, option model: {unknown('timm model', architecture, timm.list_models())}")
    tags = {cfg.tag or "": cfg for cfg in get_arch_pretrained_cfgs(architecture).values()}
    if tag and tag not in tags:
        raise WeightsError(f"backbone timm, option model: {unknown(f'weights of {architecture}', tag, tags)}")
    if weights not in (None, "default"):
        if weights not in tags:
            raise WeightsError(unknown(f"weights of {architecture}", weights, tags))
        if tag and tag != weights:
            raise WeightsError(f"weights {weights!r} contradict those named in the option model, {model!r}")
        tag = weights
    config = tags[tag] if tag else get_pretrained_cfg(architecture) or PretrainedCfg()
    if weights is None:
        return Source(architecture, tag or None, config, None, None)
    return file_of(architecture, config, tags)


def file_of(architecture: str, config: PretrainedCfg, tags: dict[str, PretrainedCfg]) -> Source:
    """The source of the weights that `config`, one of the model's `tags`, describes; WeightsError where it is none."""
    name = ".".join(part for part in (architecture, config.tag) if part)
    if not config.has_weights:
        published = name_list(key for key, other in tags.items() if other.has_weights)
        raise WeightsError(f"timm has no published weights for {name}; weights of {architecture}: {published}")
    # On the Hugging Face hub there is a converted file, unless the configuration says that there too is none.
    if config.custom_load and (config.custom_load == "hf" or not config.hf_hub_id):
        raise WeightsError(
            f"the weights of {name} are in a format that only timm reads; save timm's model to a .safetensors file "
            "and name that file instead"
        )
    if config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        url = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{file}"
        # Nearly all of them are called model.safetensors, so the name of the model has to be in the name.
        return Source(architecture, config.tag, config, url, f"timm--{name}.{file.rsplit('.', 1)[-1]}")
    return Source(architecture, config.tag, config, config.url, config.url.rsplit("/", 1)[-1])
