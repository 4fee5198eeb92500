"""The catalogue of claims, values made of results, and the part of the results a claim is about."""

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from toyicl.core import datasets
from toyicl.harness import catalogue, claim_values, claims, experiment

CATALOGUES = sorted(Path(experiment.folder()).glob("*/*.toml"))
WORKS = tuple(f"{tomllib.loads(path.read_text())['work']}, " for path in CATALOGUES)
ENTRY = 'work = "W"\n[A-1]\nsource = "s"\nstatement = "t"\npaper = "p"\nband = [0.0, 1.0]\n'
LOADED = [experiment.load(listing) for listing in experiment.listings()]


def test_every_entry_is_judged_by_exactly_one_experiment():
    entries = [
        name
        for catalogue in CATALOGUES
        for name in tomllib.loads(catalogue.read_text())
        if name != "work"
    ]
    judged = [claim.id for one in LOADED for claim in one.claims]
    assert sorted(judged) == sorted(entries)


@pytest.mark.parametrize("claim", [c for one in LOADED for c in one.claims], ids=lambda c: c.id)
def test_every_claim_can_fail_and_shows_what_a_cosine_hides(claim):
    low, high = claim.band
    assert low < high
    assert not (low == -math.inf and high == math.inf)
    assert claim.source.startswith(WORKS)
    if claim.kind == "cosine":
        assert {"norm ratio", "cosine untrained"} <= claim.shown_with.keys()


def test_a_catalogue_of_ones_own_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        ENTRY + 'exact = 0.5\nreference = "gd"\nkind = "cosine"\nwhere = { heads = 2 }\n'
    )
    (claim,) = catalogue.read(path, {"A-1": lambda results: results.loss})
    assert (claim.band, claim.floor, claim.source) == ((0.0, 1.0), 0.5, "W, s")
    assert claim.where == {"heads": 2}


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (ENTRY, "A-2", r"^claims must be in .*, got A-2$"),
        (ENTRY + "colour = 1\n", "A-1", r"^claim A-1 of the catalogue must have known entries: "),
        (ENTRY.replace("band = [0.0, 1.0]\n", ""), "A-1", r"^claim A-1 .*: 'band'$"),
    ],
)
def test_a_wrong_catalogue_is_named(tmp_path, text, name, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        catalogue.read(path, {name: lambda results: results.loss})


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
    claim = claims.Claim(
        "A", "a", claim_values.loss_over("gd"), (0.9, 1.1), source="s", paper="p", **changes
    )
    return claim.judge(two_parts())


def test_a_claim_is_about_its_part_whose_training_may_be_shorter():
    first, second = judged(where={"heads": 1}), judged(where={"heads": 2})
    assert (first["measured"], first["plateau_seeds"], first["verdict"]) == (1.0, [1], "holds")
    assert (second["spread"], second["verdict"]) == ([1.0, 1.4], "fails")


def test_seeds_on_their_plateau_count_where_the_claim_is_about_them():
    record = judged(where={"heads": 1}, plateau="")
    assert (record["spread"], record["verdict"]) == ([1.0, 3.0], "fails")


def test_a_shift_is_judged_where_it_is_furthest_on_a_log_scale(close):
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
    close(value(results).values, [0.4, 2.0])
    close(claim_values.log10(value)(results).values, np.log10([0.4, 2.0]))


def test_the_first_step_of_a_condition():
    loss = xr.DataArray(
        [[3.0, 1.0, 2.0], [3.0, 3.0, 3.0]], dims=("seed", "step"), coords={"step": [0, 10, 20]}
    )
    np.testing.assert_array_equal(claim_values.first_step(loss < 2.5).values, [10.0, np.nan])


def test_the_furthest_value_is_the_one_that_is_not_finite():
    values = xr.DataArray([[1.0, -3.0, 2.0], [1.0, np.nan, 5.0]], dims=("seed", "alpha"))
    np.testing.assert_array_equal(claim_values.furthest(values, "alpha").values, [-3.0, np.nan])


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


def test_a_part_that_was_not_measured_was_not_run():
    record = judged(where={"heads": 3})
    assert record["verdict"] == "not run"
    assert "heads" in record["reason"]


def of(value, **changes):
    return claims.Claim("A-7", "a", value, (0.9, 1.1), source="s", paper="p", **changes)


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
    with pytest.raises(claims.BrokenClaim, match=rf"^claim A-7: .*\b{name}\b"):
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
        with pytest.raises(claims.BrokenClaim, match=message):
            of(claim_values.loss_over("gddp"), **changes).judge(two_parts())
    with pytest.raises(claims.BrokenClaim, match=message):
        of(lambda results: results.reference_loss.sel(reference=["gd", "gddp"])).judge(two_parts())
    with pytest.raises(claims.BrokenClaim, match=message):
        of(claim_values.final("loss"), where={"reference": "gddp"}).judge(two_parts())
    assert staged("untrained")["verdict"] == "holds"
    with pytest.raises(claims.BrokenClaim, match=r"'stage' has no label 'trian'; .*'trained'$"):
        staged("trian")


def test_a_reference_that_only_another_part_or_point_has_was_not_run():
    """One layer is not compared with GD++, which two layers are compared with."""
    results = two_parts().reindex(reference=["gd", "gdpp"])
    results["reference_loss"].loc[{"reference": "gdpp", "heads": 2}] = 0.5
    claim = of(claim_values.loss_over("gdpp"), where={"heads": 1})
    assert claim.judge(results)["verdict"] == "not run"
    point = datasets.part(results, heads=1)
    assert of(claim_values.loss_over("gdpp")).judge(point, results)["verdict"] == "not run"
