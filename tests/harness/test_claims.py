"""Statements: verdicts on claims and findings, and the part of the results they concern."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from toyicl.core import datasets
from toyicl.core.datasets import seed_coordinate
from toyicl.core.errors import BadInput
from toyicl.harness import claim_values, evaluation
from toyicl.harness.claims import Claim, Finding


def results(values, stuck=None, **attributes):
    """Values of seeds 10, 11, ..., with marks of those on their plateau."""
    stuck = [False] * len(values) if stuck is None else stuck
    return xr.Dataset(
        {"a": ("seed", np.array(values, float)), "on_plateau": ("seed", np.array(stuck))},
        coords={"seed": np.arange(len(values)) + 10},
        attrs=attributes,
    )


def a_claim(relation="equals", **changes):
    entries = {"source": "s", "paper": "1"}
    if relation == "equals":
        entries |= {"quantity": "loss ratio", "reference": 1.0}
    return Claim("A", "a is 1", lambda results: results.a, relation=relation, **entries | changes)


def a_finding(**changes):
    return Finding("A", "a is 1", lambda results: results.a, (0.9, 1.1), source="s", **changes)


@pytest.mark.parametrize(
    ("relation", "changes", "values", "verdict"),
    [
        ("equals", {}, [1.0, 1.001, 1.002], "reproduced"),
        ("equals", {}, [1.1, 1.101, 1.102], "not reproduced"),
        ("equals", {}, [1.0, 1.02, 1.04], "inconclusive"),
        ("less", {"reference": 2.0}, [1.0, 1.001, 1.002], "reproduced"),
        ("less", {"reference": 0.5}, [1.0, 1.001, 1.002], "not reproduced"),
        ("greater", {"reference": 2.0}, [1.0, 1.001, 1.002], "not reproduced"),
        ("increases", {}, [1.0, 1.001, 1.002], "reproduced"),
        ("decreases", {}, [1.0, 1.001, 1.002], "not reproduced"),
        ("decreases", {}, [-1.0, 0.0, 1.0], "inconclusive"),
        ("appears", {}, [1, 1, 1, 1], "reproduced"),
        ("appears", {"reference": 0.05}, [1, 1, 0], "reproduced"),
        ("appears", {}, [0, 0, 0, 0], "not reproduced"),
        ("appears", {}, [1, 1, 1, 0], "inconclusive"),
    ],
)
def test_each_relation_compares_the_interval_with_its_value(relation, changes, values, verdict):
    record = a_claim(relation, **changes).judge(results(values))
    assert record["verdict"] == verdict
    assert bool(record["reason"]) == (verdict == "inconclusive")


def test_a_record_has_mean_interval_range_and_values(close):
    record = a_claim().judge(results([0.9, 1.1, 1.0]))
    close(record["measured"], 1.0)
    assert record["spread"] == [0.9, 1.1]
    assert record["values"] == [0.9, 1.1, 1.0]
    assert record["seeds"] == [3, 3]
    half = 4.302653 * 0.1 / 3**0.5
    np.testing.assert_allclose(record["interval"], [1 - half, 1 + half], rtol=1e-6)


@pytest.mark.parametrize(
    "values", [[np.inf, 1.0, 1.0], [np.nan] * 3, [1.0, 1.0, 1.0], [1e308, 1.5e308, 1e308]]
)
@pytest.mark.parametrize("statement", [a_claim(), a_claim("increases"), a_finding()])
def test_a_record_is_strict_json_and_open_ends_are_null(statement, values):
    record = statement.judge(results(values))
    read = json.loads(json.dumps(record, allow_nan=False))
    assert read == record
    if isinstance(statement, Claim) and statement.relation == "increases":
        assert read["band"] == [0.0, None]
    finite = np.isfinite(values).all()
    if finite:
        assert read["measured"] == pytest.approx(np.mean(np.array(values) / 1e300) * 1e300)
    else:
        assert record["verdict"] in ("not reproduced", "fails")
    if values == [1.0, 1.0, 1.0]:
        assert record["verdict"] in ("reproduced", "holds")


def test_an_interval_whose_ends_exceed_the_largest_number_is_null():
    record = a_claim().judge(results([1e308, -1e308, 1.0]))
    assert (record["verdict"], record["interval"]) == ("inconclusive", None)
    assert json.loads(json.dumps(record, allow_nan=False))["spread"] == [-1e308, 1e308]


@pytest.mark.parametrize("floor", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("make", [a_claim, a_finding])
def test_an_exact_value_must_be_finite(make, floor):
    with pytest.raises(BadInput, match="floor must be a finite number or None, got"):
        make(floor=floor)


def test_seeds_on_their_plateau_are_named_with_their_loss_and_left_out():
    given = results([1.0, 5.0, 1.001, 1.002], [False, True, False, False])
    given["loss"] = (("seed", "step"), [[3.0, 1.0], [3.0, 2.9], [3.0, 1.0], [3.0, 1.0]])
    record = a_claim().judge(given)
    assert record["verdict"] == "reproduced"
    assert (record["plateau_seeds"], record["plateau_losses"]) == ([11], [2.9])
    assert record["seeds"] == [3, 4]
    assert record["spread"] == [1.0, 1.002]


def test_a_value_can_lack_seeds_that_other_values_have():
    given = results([9.0, 5.0, 1.001, 1.002, 1.0], [False, True, False, False, False])
    without_first = replace(a_claim(), value=lambda data: data.a.isel(seed=slice(1, None)))
    record = without_first.judge(given)
    assert (record["verdict"], record["spread"]) == ("reproduced", [1.0, 1.002])


def test_a_claim_of_which_no_seed_left_its_plateau_is_open():
    record = a_claim().judge(results([1.0, 1.0], [True, True]))
    assert (record["verdict"], record["measured"]) == ("inconclusive", None)
    assert "plateau" in record["reason"]


def by_size(values, stuck=None):
    values = np.array(values)
    stuck = np.zeros(values.shape, bool) if stuck is None else np.array(stuck)
    return xr.Dataset(
        {"a": (("size", "size_seed"), values), "stuck": (("size", "size_seed"), stuck)},
        coords={"size": [5, 50], **seed_coordinate(range(values.shape[1]), "size_seed")},
    )


def test_a_claim_over_sizes_is_about_each_of_them():
    good, bad = [1.0, 1.001, 1.002], [1.2, 1.201, 1.202]
    claim = a_claim(plateau="stuck")
    assert claim.judge(by_size([good, good]))["verdict"] == "reproduced"
    record = claim.judge(by_size([good, bad]))
    assert (record["verdict"], record["place"]) == ("not reproduced", "size 50")
    stuck = [[False, False, False], [True, False, False]]
    record = claim.judge(by_size([good, bad[:1] + good[:2]], stuck))
    assert (record["verdict"], record["place"]) == ("inconclusive", "size 50")  # two seeds left
    assert record["plateau_seeds"] == ["size 50, size_seed 0"]


def test_values_can_be_a_sample_over_another_dimension():
    values = xr.Dataset({"a": ("layer", [1.0, 1.001, 1.002])})
    assert a_claim().judge(values)["interval"] is None  # compared as they are
    record = a_claim(over=["layer"]).judge(values)
    assert record["verdict"] == "reproduced"
    assert record["interval"][0] < 1.0
    with pytest.raises(evaluation.BrokenClaim, match=r"^claim A: .* no dimension 'lay' \(over\)$"):
        a_claim(over=["lay"]).judge(values)


def test_a_value_that_does_not_depend_on_seeds_is_compared_as_it_is():
    for value, verdict in ((1.01, "reproduced"), (1.03, "not reproduced")):
        record = a_claim().judge(xr.Dataset({"a": value}))
        assert (record["verdict"], record["seeds"]) == (verdict, None)


def test_analytical_claims_are_proved_or_refuted_by_every_value():
    claim = a_claim(quantity="rounding", analytical=True)
    assert claim.judge(results([1.0, 1 + 1e-14]))["verdict"] == "proved"
    assert claim.judge(results([1.0, 1 + 1e-11]))["verdict"] == "refuted"
    assert claim.judge(results([1.0, np.nan]))["verdict"] == "refuted"
    # Whether training left its plateau has no influence.
    assert claim.judge(results([1.0, 1.5], [False, True]))["verdict"] == "refuted"


CUT = '{"training.steps": [100, 200]}'


@pytest.mark.parametrize(
    ("values", "cut", "end", "verdict"),
    [
        ([1.5, 1.501, 1.502], CUT, 0.5, "inconclusive"),
        ([1.5, 1.501, 1.502], CUT, 1.0, "not reproduced"),
        ([1.5, 1.501, 1.502], "{}", 0.5, "not reproduced"),
        ([1.5], CUT, 0.5, "inconclusive"),
        ([1.0, 1.001, 1.002], CUT, 0.5, "reproduced"),
    ],
)
def test_a_training_that_was_cut_leaves_a_negative_verdict_open(values, cut, end, verdict):
    given = results(values, changes=cut)
    given["loss"] = (("seed", "step"), [[3.0, 1.0, end]] * len(values))
    record = a_claim().judge(given)
    assert record["verdict"] == verdict
    assert (record["reason"] == "training was cut: the loss was still falling") == (
        verdict == "inconclusive"
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0, 0.95], "holds"),
        ([0.9, 1.1], "holds"),
        ([1.0, 1.2], "fails"),  # though the mean is in the band
        ([0.8, 1.0], "fails"),
        ([np.nan, 1.0], "fails"),
        ([np.inf, 1.0], "fails"),
        ([np.nan, np.nan], "fails"),
    ],
)
def test_a_finding_holds_only_if_every_seed_lies_in_the_band(values, verdict):
    assert a_finding().judge(results(values))["verdict"] == verdict


def test_a_finding_needs_a_seed_that_left_its_plateau_at_each_size():
    finding = a_finding(plateau="stuck")
    values = [[1.0, 9.0], [1.05, 1.0]]
    assert finding.judge(by_size(values))["verdict"] == "fails"
    record = finding.judge(by_size(values, [[False, True], [False, False]]))
    assert record["verdict"] == "holds"
    assert record["plateau_seeds"] == ["size 5, size_seed 1"]
    assert record["spread"] == [1.0, 1.05]
    assert finding.judge(by_size(values, [[False, True], [True, True]]))["verdict"] == "fails"
    assert a_finding().judge(results([1.0], [True]))["verdict"] == "fails"


def test_without_results_nothing_is_run():
    for statement in (a_claim(), a_finding()):
        assert statement.judge(None)["verdict"] == "not run"


def two_parts():
    """Two models, the second trained twice as long; a seed of the first on its plateau."""
    loss = np.array([[[3.0, 1.0, np.nan], [3.0, 3.0, np.nan]], [[3.0, 2.0, 0.5], [3.0, 2.0, 0.7]]])
    return xr.Dataset(
        {
            "loss": (("heads", "seed", "step"), loss),
            "reference_loss": (("reference", "heads"), [[1.0, 0.5]]),
            "on_plateau": (("heads", "seed"), [[False, True], [False, False]]),
        },
        coords={"heads": [1, 2], "seed": [0, 1], "step": [0, 100, 200], "reference": ["gd"]},
    )


def judged(**changes):
    finding = Finding("A", "a", claim_values.loss_over("gd"), (0.9, 1.1), source="s", **changes)
    return finding.judge(two_parts())


def test_a_claim_is_about_its_part_whose_training_may_be_shorter():
    first, second = judged(where={"heads": 1}), judged(where={"heads": 2})
    assert (first["measured"], first["plateau_seeds"], first["verdict"]) == (1.0, [1], "holds")
    assert (second["spread"], second["verdict"]) == ([1.0, 1.4], "fails")


def test_a_seed_is_left_out_if_one_of_the_models_that_a_value_compares_is_on_its_plateau():
    """The value has no dimension of models, and the marks have."""

    def ratio(results):
        return results.loss.sel(heads=1, step=100) / results.loss.sel(heads=2, step=100)

    results = two_parts()
    for heads in (1, 2):
        marks = (results.heads == heads) & (results.seed == 1)
        record = of(ratio).judge(results.assign(on_plateau=marks))
        assert (record["values"], record["plateau_seeds"]) == ([0.5], [1])


def test_marks_of_other_seeds_than_those_of_the_value_are_an_error_if_they_are_named():
    results = two_parts().assign(other=("other_seed", [True, False]))
    results = results.assign_coords(other_seed=("other_seed", [0, 1], {"role": "seed"}))
    message = r"^claim A-7: 'other' \(plateau\) has the dimensions 'other_seed', and .* of 'seed'$"
    with pytest.raises(evaluation.BrokenClaim, match=message):
        of(claim_values.final("loss"), plateau="other").judge(results)
    by_default = of(lambda results: results.other.astype(float)).judge(results)
    assert by_default["values"] == [1.0, 0.0]


def test_seeds_on_their_plateau_count_where_the_claim_is_about_them():
    record = judged(where={"heads": 1}, plateau="")
    assert (record["spread"], record["verdict"]) == ([1.0, 3.0], "fails")


def test_a_shift_is_judged_at_each_of_its_amounts_that_was_measured(close):
    results = xr.Dataset(
        {
            "shifted_loss": (
                ("shift", "amount", "seed"),
                [[[1.0, 2.0], [0.4, 1.0], [0.0, 0.0], [9.0, 9.0]]],
            ),
            "shifted_reference_loss": (
                ("reference", "shift", "amount"),
                [[[1.0, 1.0, np.nan, 1.0]]],
            ),
        },
        coords={
            "amount": [0.5, 1.0, 1.2, 2.0],
            "seed": [0, 1],
            "shift": ["inputs"],
            "reference": ["gd"],
        },
    )
    value = claim_values.shift("inputs", "gd", low=0.5, high=1.5)
    assert value(results).amount.values.tolist() == [0.5, 1.0]
    close(value(results).values, [[1.0, 2.0], [0.4, 1.0]])
    close(claim_values.log10(value)(results).values, np.log10([[1.0, 2.0], [0.4, 1.0]]))


def test_the_first_step_of_a_condition():
    loss = xr.DataArray(
        [[3.0, 1.0, 2.0], [3.0, 3.0, 3.0]], dims=("seed", "step"), coords={"step": [0, 10, 20]}
    )
    np.testing.assert_array_equal(claim_values.first_step(loss < 2.5).values, [10.0, np.nan])


def test_values_shown_with_a_claim_use_the_same_part_and_seeds():
    shown_with = {"final": claim_values.final("loss")}
    assert judged(where={"heads": 1}, shown_with=shown_with)["shown_with"] == {"final": 1.0}
    assert judged(where={"heads": 2}, shown_with=shown_with)["shown_with"] == {
        "final": pytest.approx(0.6)
    }


def test_largest_and_least_do_not_pass_over_what_is_missing(close):
    results = xr.Dataset({"whole": ("episode", [3.0, 1.0]), "holed": ("episode", [3.0, np.nan])})
    close(
        [claim_values.largest("whole")(results), claim_values.least("whole")(results)], [3.0, 1.0]
    )
    assert np.isnan(
        [claim_values.largest("holed")(results), claim_values.least("holed")(results)]
    ).all()


def test_a_dimension_that_other_settings_have_was_not_run():
    record = of(claim_values.final("loss"), where={"second_value": 1}).judge(two_parts())
    assert (record["verdict"], "second_value" in record["reason"]) == ("not run", True)


def test_a_misspelt_dimension_is_an_error():
    """Also at a point of a sweep, whose results may lack a dimension that others have."""
    claim = of(claim_values.final("loss"), where={"haeds": 1})
    message = (
        r"^claim A-7: results have no dimension 'haeds' \(where\); those with labels .*'heads'"
    )
    for results in ((two_parts(),), (datasets.part(two_parts(), heads=1), two_parts())):
        with pytest.raises(evaluation.BrokenClaim, match=message):
            claim.judge(*results)
    other = two_parts().drop_vars("heads")
    record = of(claim_values.final("loss"), where={"heads": 1}).judge(other, two_parts())
    assert record["verdict"] == "not run"


def test_a_part_that_was_not_measured_was_not_run():
    record = judged(where={"heads": 3})
    assert record["verdict"] == "not run"
    assert "heads" in record["reason"]


@pytest.mark.parametrize(
    ("values", "band", "expected"),
    [
        ([0.9, 1.0, 1.1], (0.7, 1.3), "holds"),
        ([0.9, 1.0, 1.1], (0.95, 1.05), "inconclusive"),
        ([0.5, 1.0, 1.5], (2.5, 3.0), "fails"),
        ([1.0, 1.0], (0.9, 1.1), "inconclusive"),
        ([np.nan, 1.0, 1.0], (0.9, 1.1), "fails"),
    ],
)
def test_a_finding_on_a_mean_is_judged_by_its_interval(values, band, expected):
    results = xr.Dataset({"a": ("task", values)})
    finding = Finding("A", "a", lambda results: results.a, band, source="s", over=("task",))
    record = finding.judge(results)
    assert record["verdict"] == expected
    if np.isfinite(values).all() and len(values) > 2:
        assert record["measured"] == pytest.approx(np.mean(values))
        half = 4.302653 * np.std(values, ddof=1) / np.sqrt(3)
        ends = np.mean(values) - half, np.mean(values) + half
        assert record["interval"] == pytest.approx(ends, rel=1e-6)


def of(value, **changes):
    return Finding("A-7", "a", value, (0.9, 1.1), source="s", **changes)


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        (of(lambda results: results["losss"]), "losss"),
        (of(lambda results: results.losss), "losss"),
        (of(lambda results: results.loss.isel(layer=0)), "layer"),
        (of(lambda results: results.loss.sel(layer=0)), "layer"),
        (of(lambda results: results.loss.mean("head")), "head"),
        (of(claim_values.final("los")), "los"),
        (of(claim_values.final("loss"), plateau="stuck"), "stuck"),
        (
            of(claim_values.final("loss"), shown_with={"norm": claim_values.final("norm_ratio")}),
            "norm_ratio",
        ),
    ],
)
def test_a_name_that_results_do_not_have_is_an_error(claim, name):
    with pytest.raises(evaluation.BrokenClaim, match=rf"^claim A-7: .*\b{name}\b"):
        claim.judge(two_parts())


def test_a_label_that_was_not_measured_is_no_error():
    for dim, value in {
        "heads": lambda results: results.loss.sel(heads=7, step=0),
        "step": lambda results: results.loss.sel(step=[0, 7]).max("step"),
    }.items():
        record = of(value).judge(two_parts())
        assert (record["verdict"], dim in record["reason"]) == ("not run", True)


def staged(label):
    """Results with a dimension of fixed labels, and a claim about one of them."""
    values = xr.DataArray([1.0, 2.0], dims="stage", coords={"stage": ["untrained", "trained"]})
    return of(claim_values.at_stage("loss", label)).judge(xr.Dataset({"loss": values}))


def test_a_misspelt_label_of_a_fixed_dimension_is_an_error():
    message = r"^claim A-7: the dimension 'reference' has no label 'gddp'; its labels are 'gd'$"
    for changes in ({}, {"where": {"heads": 1}}):
        with pytest.raises(evaluation.BrokenClaim, match=message):
            of(claim_values.loss_over("gddp"), **changes).judge(two_parts())
    with pytest.raises(evaluation.BrokenClaim, match=message):
        of(lambda results: results.reference_loss.sel(reference=["gd", "gddp"])).judge(two_parts())
    with pytest.raises(evaluation.BrokenClaim, match=message):
        of(claim_values.final("loss"), where={"reference": "gddp"}).judge(two_parts())
    assert staged("untrained")["verdict"] == "holds"
    with pytest.raises(evaluation.BrokenClaim, match=r"'stage' has no label 'trian'; .*'trained'$"):
        staged("trian")


def test_a_reference_that_only_another_part_or_point_has_was_not_run():
    """One layer is not compared with GD++, which two layers are compared with."""
    results = two_parts().reindex(reference=["gd", "gdpp"])
    results["reference_loss"].loc[{"reference": "gdpp", "heads": 2}] = 0.5
    claim = of(claim_values.loss_over("gdpp"), where={"heads": 1})
    assert claim.judge(results)["verdict"] == "not run"
    point = datasets.part(results, heads=1)
    assert of(claim_values.loss_over("gdpp")).judge(point, results)["verdict"] == "not run"
