"""Gradient descent on weights whose mean is not 0, from any starting point.

Gradient descent from W_0 predicts W_0 x_q, plus what gradient descent from 0 predicts for the labels
y_i - W_0 x_i. Its error is therefore that of gradient descent from 0 on the weights W - W_0. For
independent, identically distributed coordinates that are symmetric about 0, the mean of any function
of the scatter matrix is a multiple of I, and the loss depends on the weights through their mean square
alone:

    E (entry of W - W_0)^2 = omega^2 + (mean - start)^2

where all entries of W have this mean and all entries of W_0 are `start`. Starting from the mean of the
prior, the loss is the same for every mean; cf. Xie et al. (2025).
"""

import math
from dataclasses import replace

from toyicl.tasks.linear import LinearRegression
from toyicl.theory.gram_spectrum import require_no_distractors


def recentred(task: LinearRegression, start: float = 0.0) -> LinearRegression:
    """The task with weights of mean 0 on which gradient descent from 0 has the same losses.

    The losses are those of gradient descent on `task` that starts from a matrix W_0 whose entries all
    equal `start`. The functions of `toyicl.theory` for gradient descent take the task that is returned.
    Raises BadInput for distractors, which do not depend on the weights, unless both `start` and the
    mean are 0.
    """
    offset = float(task.weight_mean or 0.0) - start
    if offset == 0 and not task.weight_mean:
        return task
    require_no_distractors(task)
    scale = math.hypot(float(task.weight_scale), offset)
    return replace(task, weight_mean=None, weight_scale=scale)
