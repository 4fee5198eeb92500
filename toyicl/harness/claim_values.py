"""Values of claims, computed from results: functions that make functions of a dataset.

Where a variable has the dimension `reference`, a builder takes the reference's label, such as "gd".
"""

from typing import TYPE_CHECKING

import numpy as np

from toyicl.harness.evaluation import NotMeasured, Value

if TYPE_CHECKING:  # so that listing experiments does not need it
    import xarray as xr


def last(values: "xr.DataArray") -> "xr.DataArray":
    """Values after training."""
    return values.isel(step=-1)


def first_step(condition: "xr.DataArray") -> "xr.DataArray":
    """Training step at which a condition first holds, for each seed; NaN where it never does."""
    return condition.step.isel(step=condition.argmax("step")).where(condition.any("step"))


def of(results: "xr.Dataset", name: str, reference: str | None = None) -> "xr.DataArray":
    """A variable of the results; of one reference, if it is compared with several."""
    values = results[name]
    return values if reference is None else values.sel(reference=reference, drop=True)


def reference_loss(results: "xr.Dataset", reference: str) -> "xr.DataArray":
    """Loss of a reference on the same episodes."""
    return of(results, "reference_loss", reference)


def loss_over(reference: str) -> Value:
    """The final loss divided by that of a reference, for each seed."""
    return lambda results: last(results["loss"]) / reference_loss(results, reference)


def interpolated_over(reference: str) -> Value:
    """The loss of interpolated weights divided by that of a reference, for each seed."""
    return lambda results: results["interpolated_loss"] / reference_loss(results, reference)


def ratio_of_references(name: str, one: str, other: str) -> Value:
    """A variable of the comparison with a reference divided by that with another, after training."""
    return lambda results: final(name, one)(results) / final(name, other)(results)


def largest(name: str) -> Value:
    """The largest entry of a variable, of all seeds; NaN if one is NaN."""
    return lambda results: results[name].max(skipna=False)


def least(name: str) -> Value:
    """The least entry of a variable, of all seeds; NaN if one is NaN."""
    return lambda results: results[name].min(skipna=False)


def final(name: str, reference: str | None = None) -> Value:
    """A variable after training, for each seed; compared with a reference, if one is given."""
    return lambda results: last(of(results, name, reference))


def untrained(name: str, reference: str | None = None) -> Value:
    """A variable before the first step, for each seed; compared with a reference, if one is given."""
    return lambda results: of(results, name, reference).isel(step=0)


def at_stage(name: str, stage: str = "trained") -> Value:
    """A variable of trained models, or of untrained ones, in results that have both."""
    return lambda results: results[name].sel(stage=stage, drop=True)


def with_cosine(reference: str | None) -> dict[str, Value]:
    """Values to show with a cosine: what it does not measure, and the cosine without training."""
    return {
        "norm ratio": final("norm_ratio", reference),
        "prediction difference": final("prediction_difference", reference),
        "cosine untrained": untrained("model_cosine", reference),
    }


def with_staged_cosine() -> dict[str, Value]:
    """The same as `with_cosine`, for results with the dimension `stage` and without steps."""
    return {
        "norm ratio": at_stage("norm_ratio"),
        "prediction difference": at_stage("prediction_difference"),
        "cosine untrained": at_stage("model_cosine", "untrained"),
    }


def shift(name: str, reference: str, *, low: float, high: float) -> Value:
    """Loss divided by that of a reference under a shift, at its amounts from `low` to `high`.

    `name` is a label of the dimension `shift`.
    """

    def value(results: "xr.Dataset") -> "xr.DataArray":
        ratio = shifted_ratio(results, name, reference)
        inside = ratio.isel(amount=(ratio.amount >= low) & (ratio.amount <= high))
        if not inside.sizes["amount"]:
            raise NotMeasured(f"there is no amount between {low} and {high}")
        return inside

    return value


def shifted_ratio(results: "xr.Dataset", name: str, reference: str) -> "xr.DataArray":
    """Loss divided by that of a reference under a shift, (amount, seed), at its own amounts."""
    own = results["shifted_loss"].sel(shift=name, drop=True)
    other = of(results, "shifted_reference_loss", reference).sel(shift=name, drop=True)
    measured = other.notnull().any([dim for dim in other.dims if dim != "amount"])
    return own.isel(amount=measured) / other.isel(amount=measured)


def log10(value: Value) -> Value:
    """The common logarithm of a value."""
    return lambda results: value(results).copy(data=np.log10(value(results).values))
