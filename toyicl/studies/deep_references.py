"""References for models of several layers: GD and GD++ under the model's token clip.

Such a model clips its token entries after each layer. Its references clip theirs too, and their best
parameters are found under the clip. The best GD++ without a clip is a reference as well: a bound that
no model under the clip can reach. GD++ as the paper tunes it, from a fixed start with a fixed number
of optimiser steps, shows how far that tuning is from the best of its class.
"""

import jax

from toyicl.algorithms.token_descent import TokenDescent
from toyicl.models.transformer import Architecture
from toyicl.tasks.linear import LinearRegression
from toyicl.training.loop import History, Job
from toyicl.training.step import StartFrom, Training

TUNED, UNCLIPPED = "gdpp_tuned", "gdpp_unclipped"
"""Labels of GD++ as the paper tunes it, and of the best GD++ without a clip."""


def deep_references(
    task: LinearRegression,
    model: Architecture,
    tuning: History,
    *,
    per_layer: bool = False,
) -> dict[str, TokenDescent]:
    """The references of a model of several layers, which take as many steps.

    "gd" and "gdpp" are the best under the model's token clip, "gdpp_tuned" is the result of the job of
    `tuned_gdpp`, and "gdpp_unclipped", for a model with a clip, is the best GD++ without it. GD++ has
    one (eta, gamma), or `per_layer` one for each layer; GD has one step size.
    """
    clip, steps = model.token_clip, model.depth
    best = TokenDescent.gdpp_per_layer if per_layer else TokenDescent.gdpp
    found = {
        "gd": TokenDescent.gd(task, steps, clip),
        "gdpp": best(task, steps, clip),
        TUNED: jax.tree.map(lambda leaf: leaf[0], tuning.final),
    }
    if clip is not None:
        found[UNCLIPPED] = best(task, steps, None)
    return found


def tuned_gdpp(
    task: LinearRegression, model: Architecture, training: Training, *, per_layer: bool = False
) -> Job:
    """The tuning of GD++ by Adam as in the paper, under the model's token clip; one run."""
    start = TokenDescent.tuning_start(task, model.depth, model.token_clip, per_layer=per_layer)
    return Job(StartFrom(learner=start), task, training, max_seeds=1)
