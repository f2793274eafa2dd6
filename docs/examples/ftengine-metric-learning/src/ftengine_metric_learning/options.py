"""The options of all components, as a config gives them. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ftengine.plugin import DatasetOptions, Options


class TaskOptions(Options):
    per_class: int | None = Field(
        None,
        ge=2,
        description="About how many images of a class come together in a training batch. Losses of pairs and triplets "
        "need several, of which a batch drawn from many classes has few; left out, chance says.",
    )


class HeadOptions(Options):
    size: int = Field(128, ge=2, description="How many numbers an embedding has.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Probability of dropping a pooled feature in training.")


class ArcFaceOptions(Options):
    margin: float = Field(28.6, ge=0, lt=180, description="Angle to be closer to the own class by, in degrees.")
    scale: float = Field(64.0, gt=0, description="What the cosines are multiplied by before the softmax.")


class TripletOptions(Options):
    margin: float = Field(0.2, gt=0, description="How much closer an image of the class must be than another's.")
    distance: Literal["euclidean", "cosine"] = Field("euclidean", description="What closeness is measured by.")
    miner: Literal["all", "semihard", "hard", "batch_hard", "distance_weighted"] = Field(
        "all",
        description="Which triplets count. all: those within the margin; semihard: of these the ones in the right "
        "order; hard: those in the wrong order; batch_hard: of each image the farthest of its class and the closest "
        "other; distance_weighted: drawn evenly over distances (euclidean only).",
    )

    @model_validator(mode="after")
    def _fits(self) -> TripletOptions:
        if self.miner == "distance_weighted" and self.distance != "euclidean":
            raise ValueError("`miner: distance_weighted` goes with `distance: euclidean`")
        return self


class ContrastiveOptions(Options):
    pos_margin: float = Field(0.0, ge=0, description="Distance up to which a pair of one class is close enough.")
    neg_margin: float = Field(1.0, gt=0, le=2, description="Distance from which a pair of two classes is apart enough.")

    @model_validator(mode="after")
    def _in_order(self) -> ContrastiveOptions:
        if self.pos_margin >= self.neg_margin:
            raise ValueError(f"`pos_margin` {self.pos_margin:g} is not below `neg_margin` {self.neg_margin:g}")
        return self


class RetrievalOptions(Options):
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 5), description="recall@k for these k; recall@1 is always there."
    )


class VerificationOptions(Options):
    pairs: int = Field(10_000, ge=2, description="How many pairs are drawn, half of them of one class.")
    far: float = Field(0.01, gt=0, lt=1, description="The part of the other pairs that may be accepted, for the TAR.")
    seed: int = Field(0, ge=0, description="Seed of the pairs.")


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: [str(one) for one in value] if isinstance(value, list | tuple) else value),
    Field(min_length=1),
]
"""Names of classes; a config may write those that are numbers as such."""

Share = Annotated[float, Field(gt=0, lt=1)]


class ClassOptions(DatasetOptions):
    """Splits by class: what `val` and `test` take, `train` does not have."""

    train: Names | None = Field(None, description="Classes to train on; all that are left if left out.")
    val: Names | Share | None = Field(
        0.3,
        description="Classes to validate on, by name, or as a part of all classes, drawn with `split_seed`; null: "
        "images of the training classes, as `val_fraction` says.",
    )
    test: Names | Share | None = Field(None, description="Classes to test on, in the same way, if there are any.")

    @model_validator(mode="after")
    def _apart(self) -> ClassOptions:
        splits = {name: value for name in ("train", "val", "test") if isinstance(value := getattr(self, name), tuple)}
        for name, classes in splits.items():
            if len(set(classes)) < len(classes):
                raise ValueError(f"`{name}` names a class twice")
            for other, those in splits.items():
                if name < other and (both := set(classes) & set(those)):
                    raise ValueError(f"`{name}` and `{other}` have classes in common: {', '.join(sorted(both))}")
        parts = [value for value in (self.val, self.test) if isinstance(value, float)]
        if sum(parts) >= 1:
            raise ValueError("`val` and `test` take all classes, which leaves none to train on")
        return self


class FolderOptions(ClassOptions):
    images: Path = Field(Path("."), description="Folder with one folder a class, from `root` if it is relative.")
    limit: int | None = Field(None, ge=2, description="Use the first so many images of each class only.")
    verify: bool = Field(True, description="Read the header of every image before training.")


class DigitsOptions(ClassOptions):
    length: int = Field(1, ge=1, le=2, description="Digits side by side: 1 makes ten classes, 2 make a hundred.")
    seed: int = Field(0, ge=0, description="Seed of which digits stand side by side.")
    limit: int | None = Field(None, ge=2, description="Use the first so many images of each class only.")
