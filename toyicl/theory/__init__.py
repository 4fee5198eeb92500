"""Closed forms and numerically exact values of optimal steps and losses."""

from toyicl.theory.closed_form import (
    Optimum,
    bayes_loss,
    centred_optimum,
    excess_loss,
    floors,
    gd_per_step,
    gd_shared,
    gdpp_per_layer,
    gdpp_shared,
    gradient_descent_loss,
    gradient_descent_optimum,
    optimal_scale,
    predict_zero_loss,
    ridge,
    single_head_loss,
)
from toyicl.theory.correlated_inputs import best_scalar_step, best_step_matrix, step_matrix_loss

__all__ = [
    "Optimum",
    "bayes_loss",
    "best_scalar_step",
    "best_step_matrix",
    "centred_optimum",
    "excess_loss",
    "floors",
    "gd_per_step",
    "gd_shared",
    "gdpp_per_layer",
    "gdpp_shared",
    "gradient_descent_loss",
    "gradient_descent_optimum",
    "optimal_scale",
    "predict_zero_loss",
    "ridge",
    "single_head_loss",
    "step_matrix_loss",
]
