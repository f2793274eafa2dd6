"""The config's section ``train``: how long, how large, how precise, and what is averaged."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ftengine.config_faults import BadSampleConfig, NonFiniteConfig
from ftengine.config_refs import Section
from ftengine.errors import FtengineError


class EmaConfig(Section):
    """An exponential moving average of the weights, used for evaluation and saved as the model."""

    shorthand = ({"type": "number"}, {"const": True})
    forms = "true, a decay below 1, a mapping, or null"

    decay: float = Field(0.999, gt=0, lt=1, description="Weight of the average at each step.")
    warmup: bool = Field(True, description="Use min(decay, (1 + n) / (10 + n)) at the n-th step.")

    @model_validator(mode="before")
    @classmethod
    def _from_decay(cls, value: Any) -> Any:
        return {"decay": value} if isinstance(value, float) else {} if value is True else value


class SwaConfig(Section):
    """Stochastic weight averaging: the mean of the weights at the ends of the last epochs (Izmailov et al. 2018).

    From then on it is what is evaluated and saved as the model; BatchNorm's statistics are taken anew for it.
    """

    shorthand = ({"const": True},)
    forms = "true, a mapping, or null"

    start: float = Field(0.75, ge=0, lt=1, description="Part of the epochs after which the averaging begins.")
    lr: float | None = Field(
        None,
        gt=0,
        description="Factor of the optimizer's lr while averaging, in place of the schedule; default: the schedule's.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_true(cls, value: Any) -> Any:
        return {} if value is True else value


Alpha = Annotated[float, Field(ge=0, le=1)]


class WiseFtConfig(Section):
    """After the run, mix the weights it started from with those it ended with (Wortsman et al. 2022).

    Each factor of the grid, 0 the start and 1 the end, is evaluated on `val`; the best becomes the best checkpoint.
    """

    shorthand = ({"const": True},)
    forms = "true, a mapping, or null"

    grid: Annotated[tuple[Alpha, ...], Field(min_length=1)] = Field(
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), description="Mixing factors to evaluate."
    )
    heads: bool = Field(
        False, description="Mix the heads as well, for those that started from published weights; else they stay."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_true(cls, value: Any) -> Any:
        return {} if value is True else value


class EarlyStopping(Section):
    """Stop when the monitored value has not improved for a while."""

    shorthand = ({"type": "integer", "minimum": 1},)
    forms = "a patience in evaluations, a mapping with `patience`, or null"

    patience: int = Field(ge=1, description="Evaluations without an improvement before the run stops.")
    min_delta: float = Field(0.0, ge=0, description="Smallest change that counts as an improvement.")

    @model_validator(mode="before")
    @classmethod
    def _from_patience(cls, value: Any) -> Any:
        return {"patience": value} if isinstance(value, int) and not isinstance(value, bool) else value


class TrainConfig(Section):
    """How long, how large, how precise."""

    epochs: int = Field(10, ge=1, description="Passes over the training data.")
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        32, description="Samples in each optimizer step; auto: the largest power of two, times accumulate, that fits."
    )
    accumulate: int = Field(1, ge=1, description="Parts that each batch is computed in; divides batch_size.")
    auto_micro_batch: bool = Field(
        False, description="When memory runs out, compute the same batch in twice as many parts."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Of forward and backward; auto: bf16 where the device computes in it, else fp16 or fp32."
    )
    channels_last: Literal["auto"] | bool = Field(
        "auto", description="Memory format; auto: for convolutional backbones."
    )
    compile: bool = Field(False, description="Compile the backbone with torch.compile.")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto | cpu | cuda | cuda:N | mps")
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto", description="Processes that load data; auto: none on a CPU, up to 8 with a GPU."
    )
    worker_timeout: float = Field(
        300.0, gt=0, description="Seconds without a batch after which the processes that load data count as hung."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="All randomness of the run follows from it.")
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient of all parameters.")
    on_non_finite: NonFiniteConfig = Field(
        NonFiniteConfig(), description="stop | skip | rollback, when a loss or gradient is not finite; or options."
    )
    on_bad_sample: BadSampleConfig = Field(
        BadSampleConfig(), description="error | quarantine, when a sample cannot be read; or options."
    )
    sync_batchnorm: bool = Field(
        False, description="BatchNorm over the batch of all processes together; for several GPUs."
    )
    process_timeout: float = Field(
        600.0, gt=0, description="Seconds without an answer after which another process of the run counts as lost."
    )
    ema: EmaConfig | None = Field(None, description="Average the weights; true, a decay, or options.")
    swa: SwaConfig | None = Field(None, description="Average the last epochs' weights; true, or options.")
    wise_ft: WiseFtConfig | None = Field(
        None, description="Mix the weights of the start and the end when the run is over; true, or options."
    )
    early_stopping: EarlyStopping | None = Field(None, description="A patience, or options.")
    eval_every: int = Field(1, ge=1, description="Epochs between evaluations; the last one is always evaluated.")
    eval_batch_size: int | None = Field(None, ge=1, description="Batch size of evaluation; default: batch_size.")
    pictures: int = Field(
        4, ge=0, description="Images of the val split to draw at each evaluation, truth beside prediction."
    )
    log_every: int = Field(10, ge=1, description="Steps between logged training losses.")
    monitor: str | None = Field(
        None, description="What the best checkpoint is chosen by: loss, or a metric; default: the first metric."
    )

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if self.batch_size != "auto" and self.batch_size % self.accumulate:
            raise ValueError(f"accumulate {self.accumulate} does not divide batch_size {self.batch_size}")
        if self.ema is not None and self.swa is not None:
            raise ValueError("ema and swa are two averages of the same weights: choose one")
        return self

    @property
    def batch(self) -> int:
        """`batch_size` as a number. Raises FtengineError for ``auto``, which becomes one when a run starts."""
        if self.batch_size == "auto":
            raise FtengineError("train.batch_size: auto is found where a run starts; give a number here")
        return self.batch_size
