"""The loss of ridge regression and of the posterior mean, and a table of all reference losses."""

from collections.abc import Iterable
from typing import Any

from toyicl.core.config import require_positive
from toyicl.tasks.linear import LinearRegression
from toyicl.theory.closed_form import Optimum, predict_zero_loss
from toyicl.theory.gram_spectrum import population_loss, require_no_distractors
from toyicl.theory.optimal_steps import gd_per_step, gd_shared, gdpp_shared
from toyicl.theory.saddles import saddle_losses


def ridge(task: LinearRegression) -> tuple[float, float]:
    """Loss and penalty of the best ridge regression, with penalty sigma^2 / omega^2 on the plain sum.

    Without noise the penalty is 0, which stands for the limit, the least-squares solution of
    minimum norm. Raises BadInput for distractors, for weights of scale 0 and for tasks that
    `input_moments` refuses.
    """
    require_positive("task.weight_scale", task.weight_scale)
    require_no_distractors(task)
    penalty = (float(task.label_noise or 0.0) / float(task.weight_scale)) ** 2
    if penalty == 0:  # N points determine the weights but for d - N directions without data
        unseen = max(task.dim - task.context_size, 0) / task.dim
        return predict_zero_loss(task) * unseen, 0.0
    return population_loss(task, lambda values: penalty / (values + penalty)), penalty


def bayes_loss(task: LinearRegression) -> float:
    """Loss of the posterior mean, the smallest of all learners; here this is ridge regression."""
    return ridge(task)[0]


def floors(task: LinearRegression, depths: Iterable[int]) -> dict[str, Any]:
    """The losses and parameters of all references of a task, for each number of steps in `depths`.

    Consists of dictionaries, lists and numbers. "saddles" has the losses of the saddle points of one
    linear layer (`saddle_losses`). The command `toyicl floors` prints it.
    """
    loss, penalty = ridge(task)
    shared, per_step, curved = [], [], []
    for depth in depths:
        shared.append(_row(gd_shared(task, depth)))
        best = gd_per_step(task, depth)
        rates = list(best.learning_rates)
        per_step.append({"steps": depth, "loss": best.loss, "learning_rates": rates})
        curved.append(_row(gdpp_shared(task, depth)))
    return {
        "predict_zero": predict_zero_loss(task),
        "gd_shared": shared,
        "gd_per_step": per_step,
        "gdpp_shared": curved,
        "bayes": loss,
        "ridge": {"loss": loss, "penalty": penalty},
        "saddles": saddle_losses(task).tolist(),
    }


def _row(best: Optimum) -> dict[str, Any]:
    """An optimum with shared steps as a dictionary, with its curvature if it has one."""
    row = {"steps": best.steps, "loss": best.loss, "learning_rate": best.learning_rates[0]}
    return row | ({"curvature": best.curvatures[0]} if best.curvatures else {})
