"""The optimizers of torch.optim as typed options: names and defaults are torch's, known without importing it.

Left out: LBFGS (calls the loss several times a step), SparseAdam (sparse gradients) and Muon (matrices only).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ftengine.plugin import Options

Beta = Annotated[float, Field(ge=0, lt=1)]
MAX_LR = 1e6
"""Far more than any training takes, and far less than what overflows in the arithmetic of torch's optimizers."""
Positive = Annotated[float, Field(gt=0)]


class Optimizer(Options):
    """What every optimizer has in common; `torch_name` is its class in torch.optim.

    `has_fused`: torch has a form of it that runs as one kernel on the device, and that leaves a step out by itself.
    """

    torch_name: ClassVar[str] = ""
    has_fused: ClassVar[bool] = False
    lr: float = Field(0.001, gt=0, le=MAX_LR, description="Learning rate: the schedule multiplies it.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay, as the optimizer defines it.")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the torch class."""
        return self.model_dump()


class _Adaptive(Optimizer):
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="Decay rates of the two running averages.")
    eps: float = Field(1e-8, ge=0, description="Added to the denominator.")


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum."""

    torch_name = "SGD"
    has_fused = True
    lr: float = Field(0.01, gt=0, le=MAX_LR, description="Learning rate: the schedule multiplies it.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")
    dampening: float = Field(0.0, ge=0, description="Dampening of the momentum.")
    nesterov: bool = Field(False, description="Nesterov's momentum.")

    @model_validator(mode="after")
    def _nesterov(self) -> SGD:
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")
        return self


class Adam(_Adaptive):
    """Adam (Kingma and Ba 2015); its weight decay is added to the gradient."""

    torch_name = "Adam"
    has_fused = True
    amsgrad: bool = Field(False, description="Keep the maximum of the second moment (Reddi et al. 2018).")


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    torch_name = "AdamW"
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay.")


class Adamax(_Adaptive):
    """Adam with the infinity norm (Kingma and Ba 2015)."""

    torch_name = "Adamax"
    lr: float = Field(0.002, gt=0, le=MAX_LR, description="Learning rate: the schedule multiplies it.")


class NAdam(_Adaptive):
    """Adam with Nesterov's momentum (Dozat 2016)."""

    torch_name = "NAdam"
    lr: float = Field(0.002, gt=0, le=MAX_LR, description="Learning rate: the schedule multiplies it.")
    momentum_decay: float = Field(0.004, ge=0, description="Decay of the momentum.")
    decoupled_weight_decay: bool = Field(False, description="Decouple the weight decay, as AdamW does.")


class RAdam(_Adaptive):
    """Rectified Adam (Liu et al. 2020)."""

    torch_name = "RAdam"
    decoupled_weight_decay: bool = Field(False, description="Decouple the weight decay, as AdamW does.")


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012)."""

    torch_name = "RMSprop"
    lr: float = Field(0.01, gt=0, le=MAX_LR, description="Learning rate: the schedule multiplies it.")
    alpha: float = Field(0.99, ge=0, lt=1, description="Decay of the running average of squares.")
    eps: float = Field(1e-8, ge=0, description="Added to the denominator.")
    momentum: float = Field(0.0, ge=0, lt=1, description="Momentum.")
    centered: bool = Field(False, description="Normalise by the estimated variance.")


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011)."""

    torch_name = "Adagrad"
    has_fused = True
    lr: float = Field(0.01, gt=0, le=MAX_LR, description="Learning rate: the schedule multiplies it.")
    lr_decay: float = Field(0.0, ge=0, description="Decay of the learning rate.")
    initial_accumulator_value: float = Field(0.0, ge=0, description="Start of the sum of squares.")
    eps: float = Field(1e-10, ge=0, description="Added to the denominator.")


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012)."""

    torch_name = "Adadelta"
    lr: float = Field(1.0, gt=0, le=MAX_LR, description="Factor of the update: the schedule multiplies it.")
    rho: float = Field(0.9, ge=0, le=1, description="Decay of the running averages.")
    eps: float = Field(1e-6, ge=0, description="Added to the denominator.")


class Adafactor(Optimizer):
    """Adafactor (Shazeer and Stern 2018), with factored second moments."""

    torch_name = "Adafactor"
    lr: float = Field(0.01, gt=0, le=MAX_LR, description="Learning rate: the schedule multiplies it.")
    beta2_decay: float = Field(-0.8, le=0, description="Decay rate of the second moment.")
    eps: tuple[Positive | None, Positive] = Field((None, 1e-3), description="Two regularisation constants.")
    d: float = Field(1.0, ge=1, description="Clipping threshold of the update.")


class ASGD(Optimizer):
    """Averaged stochastic gradient descent (Polyak and Juditsky 1992)."""

    torch_name = "ASGD"
    lr: float = Field(0.01, gt=0, le=MAX_LR, description="Learning rate: the schedule multiplies it.")
    lambd: float = Field(1e-4, ge=0, description="Decay term.")
    alpha: float = Field(0.75, ge=0, description="Power of the step size's update.")
    t0: float = Field(1e6, ge=0, description="Step at which the averaging starts.")


class Rprop(Optimizer):
    """Resilient backpropagation (Riedmiller and Braun 1993), for full batches; `lr` sets the first step only."""

    torch_name = "Rprop"
    lr: float = Field(0.01, gt=0, le=MAX_LR, description="First step size.")
    weight_decay: float = Field(0.0, ge=0, le=0, description="Rprop has none.")
    etas: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=1)]] = Field(
        (0.5, 1.2), description="Factors by which a step shrinks and grows."
    )
    step_sizes: tuple[Positive, Positive] = Field((1e-6, 50.0), description="Smallest and largest step.")

    def arguments(self) -> dict[str, Any]:
        return self.model_dump(exclude={"weight_decay"})


OPTIMIZERS: dict[str, type[Optimizer]] = {
    model.torch_name.lower(): model
    for model in (SGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, Adagrad, Adadelta, Adafactor, ASGD, Rprop)
}
"""By lower-case name, as in ``optimizer: {name: adamw, lr: 1e-4}``."""
