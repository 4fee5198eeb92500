"""Optimal steps and expected losses on linear regression, in closed form or to high precision."""

from toyicl.theory.closed_form import (
    Optimum,
    centred_optimum,
    excess_loss,
    gradient_descent_loss,
    gradient_descent_optimum,
    optimal_scale,
    predict_zero_loss,
    single_head_loss,
)
from toyicl.theory.correlated_descent import correlated_gd, correlated_gdpp
from toyicl.theory.correlated_inputs import best_scalar_step, best_step_matrix, step_matrix_loss
from toyicl.theory.gram_spectrum import input_moments, population_loss
from toyicl.theory.optimal_steps import gd_per_step, gd_shared, gdpp_per_layer, gdpp_shared
from toyicl.theory.prior_mean import recentred
from toyicl.theory.reference_losses import bayes_loss, floors, ridge
from toyicl.theory.saddles import saddle_losses
from toyicl.theory.softmax_head import (
    HeadOptimum,
    softmax_head_distance,
    softmax_head_limit_ratio,
    softmax_head_loss,
    softmax_head_optimum,
)
from toyicl.theory.task_pool import PoolErrors, pool_errors

__all__ = [
    "HeadOptimum",
    "Optimum",
    "PoolErrors",
    "bayes_loss",
    "best_scalar_step",
    "best_step_matrix",
    "centred_optimum",
    "correlated_gd",
    "correlated_gdpp",
    "excess_loss",
    "floors",
    "gd_per_step",
    "gd_shared",
    "gdpp_per_layer",
    "gdpp_shared",
    "gradient_descent_loss",
    "gradient_descent_optimum",
    "input_moments",
    "optimal_scale",
    "pool_errors",
    "population_loss",
    "predict_zero_loss",
    "recentred",
    "ridge",
    "saddle_losses",
    "single_head_loss",
    "softmax_head_distance",
    "softmax_head_limit_ratio",
    "softmax_head_loss",
    "softmax_head_optimum",
    "step_matrix_loss",
]
