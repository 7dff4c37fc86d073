"""The page on energy: how pools are charged, what is chosen by which rule, and what its tables and curves hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replications.semirouter import cells, energy, energy_tables, experiment
from replications.semirouter import energy_page as page
from replications.semirouter.energy_tables import JOULES, WH
from replications.semirouter.params import EnergyParams
from routebook import load, runs
from routebook.benchmark import RoutingBenchmark
from routebook.deferral import deferral_curve
from routebook.errors import DataError, UserError
from routebook.record import Record

WATT_HOURS = [0.01, 0.1, 1.0]


def made_up(unit: str = WH, n: int = 80) -> RoutingBenchmark:
    """Two tasks told apart by the embedding, three LLMs of which the dearest is right most often."""
    rng = np.random.default_rng(0)
    hard = np.arange(n) % 2
    right = np.stack([hard == 0, (np.arange(n) % 4) < 2, np.arange(n) % 8 > 0], axis=1).astype(float)
    spread = rng.uniform(0.5, 1.5, (n, 1))
    return RoutingBenchmark(
        name="made-up",
        prompts=[f"question {i}" for i in range(n)],
        tasks=np.where(hard, "hard", "easy"),
        models=["small", "medium", "large"],
        quality=right,
        cost=np.array(WATT_HOURS) * spread,
        cost_unit=unit,
        origin="made",
        embeddings=np.column_stack([hard, 1 - hard, rng.normal(size=(n, 2))]),
    )


def small_params(**given) -> EnergyParams:
    return EnergyParams.build(
        {"n_seeds": 2, "n_clusters": 4, "epochs": 1, "backbone_epochs": 1, "per_query": 1, **given}
    )


@pytest.fixture(scope="module")
def pool() -> page.Pool:
    """The made-up pool, with every router of the page trained for two seeds."""
    params, benchmark = small_params(), made_up()
    settings = page.settings_of(benchmark, params)
    return page.Pool("made-up", benchmark, page.MEASURED, settings, "large", page.train(params, settings))


# --- data ------------------------------------------------------------------------------------------------------------


def test_measured_energy_is_kept_and_any_other_cost_replaced(monkeypatch):
    joules, source = page.charge(made_up(JOULES))
    assert source == page.MEASURED
    assert joules.cost_unit == WH
    np.testing.assert_allclose(joules.cost, made_up().cost / 3600)
    modelled, source = page.charge(load("tinypool").sample(20, 0))
    assert (modelled.cost_unit, source) == (WH, page.MODELLED)
    table = dict(zip(["small", "medium", "large"], [1.0, 2.0, 3.0], strict=True))
    monkeypatch.setattr(energy_tables, "energy_table", lambda tables: table)
    averaged, source = page.charge(made_up("USD per prompt"), tables={})
    assert source == page.PUBLISHED
    assert averaged.cost[[0, -1]].tolist() == [[1.0, 2.0, 3.0]] * 2


def test_all_seeds_share_the_prompts_and_differ_in_the_labels():
    first, second = page.settings_of(made_up(), small_params())
    assert (first.seed, second.seed) == (0, 1)
    assert first.test.prompts == second.test.prompts
    assert first.full is second.full
    seen = [~np.isnan(setting.sparse.quality) for setting in (first, second)]
    assert all((some.sum(axis=1) == 2).all() for some in seen), "the anchor's label and one more"
    assert (seen[0] != seen[1]).any()
    (alone, _) = experiment.settings_of(made_up(), small_params())
    np.testing.assert_array_equal(alone.sparse.quality, first.sparse.quality)


def test_routerbench_needs_the_published_tables(monkeypatch):
    asked = []
    monkeypatch.setattr(page, "load_pool", lambda params, name, tables: asked.append(name))
    monkeypatch.setattr(runs, "resolve_datasets", lambda params: params.pools or ("routerbench", "mess-plus"))
    page.load_pools(small_params(), None)
    assert asked == ["mess-plus"]
    page.load_pools(small_params(), {"some": pd.DataFrame()})
    assert asked[1:] == ["routerbench", "mess-plus"]
    monkeypatch.setattr(runs, "resolve_datasets", lambda params: params.pools or ("routerbench",))
    page.load_pools(small_params(), None)
    assert asked[3:] == ["tinypool"]
    page.load_pools(small_params(pools=["routerbench"]), None)
    assert asked[4:] == ["routerbench"], "who asks for it is told what is missing"


def test_without_published_tables_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTEBOOK_DATA", str(tmp_path))
    monkeypatch.setenv("ROUTEBOOK_CACHE", str(tmp_path / "cache"))
    assert page.published() is None
    with pytest.raises(DataError, match="energy"):
        page.charge(made_up("USD per prompt"))


def test_a_dataset_without_a_test_prompt_is_refused():
    whole = made_up()
    with pytest.raises(UserError, match=r"no test prompt of hard is left.*raise max_prompts"):
        page._check_all_tested(whole.subset(whole.tasks == "easy"), whole)


# --- choices ---------------------------------------------------------------------------------------------------------


class Stub:
    """A router that says what it is told to, of LLMs in the order of the pool."""

    uses_tasks = False

    def __init__(self, quality, labels=None):
        self.models_ = ["small", "medium", "large"]
        self.quality = np.asarray(quality, dtype=float)
        if labels is not None:
            self.predict_labels = lambda embeddings: np.asarray(labels, dtype=float)

    def predict_quality(self, embeddings):
        return self.quality


@pytest.mark.parametrize(
    ("rule", "labels", "expected"),
    [
        # Of the LLMs labelled good the one that takes least; where none is good, of those that are bad.
        ("label", [[1, 1, 1], [0, 1, 1], [0, 0, 0], [0, 0, 1]], [0, 1, 0, 2]),
        # The nearest level of each estimate: (1, 0, 1), (0, 1, 1), (0, 0, 0), (1, 1, 1).
        ("label", None, [0, 1, 0, 0]),
        ("quality", [[1, 1, 1], [0, 1, 1], [0, 0, 0], [0, 0, 1]], [2, 1, 1, 2]),
    ],
)
def test_the_best_label_goes_to_the_least_energy_and_the_best_quality_does_not(rule, labels, expected):
    setting = page.settings_of(made_up(), small_params())[0]
    four = replace(setting, test=setting.test.subset(range(4)), test_embeddings=setting.test_embeddings[:4])
    quality = [[0.6, 0.1, 0.9], [0.3, 0.8, 0.7], [0.1, 0.2, 0.1], [0.6, 0.7, 1.2]]
    assert page.choose(Stub(quality, labels), four, rule).tolist() == expected


def test_an_unknown_rule_is_refused(pool):
    with pytest.raises(UserError, match="rule is 'score', expected 'label' or 'quality'"):
        page.choices_of(pool, rule="score")


def test_another_table_changes_what_is_chosen_and_charged(pool):
    turned = {"small": 3.0, "medium": 2.0, "large": 1.0}
    chosen, test = page.choices_of(pool, "oracle", table=turned)
    assert test.cost[0].tolist() == [3.0, 2.0, 1.0]
    dearest_right = [max(np.flatnonzero(row == row.max())) for row in test.quality]
    assert all(some.tolist() == dearest_right for some in chosen)
    chosen, test = page.choices_of(pool, "oracle")
    cheapest_right = [min(np.flatnonzero(row == row.max())) for row in test.quality]
    assert chosen[0].tolist() == cheapest_right


def test_every_method_routes_and_none_beats_the_oracle(pool):
    assert pool.ours == "semirouter-emb"
    assert pool.methods == ["semirouter-emb", *page.SIMPLE]
    numbers, shown = page.method_table(pool)
    assert len(shown) == len(pool.methods)
    for rule in ("label", "quality"):
        quality = numbers["quality"].filter(like=f"/{rule}")
        assert quality[f"oracle/{rule}"] == quality.max()
    # By quality BestSingle takes the LLM that is best in training, the large one, which saves nothing.
    assert numbers.loc["best-single/quality", "saving"] == pytest.approx(0.0)
    assert numbers.loc["best-single/quality", "energy"] == pytest.approx(_macro(pool.test, 2))


def _macro(benchmark: RoutingBenchmark, column: int) -> float:
    parts = [benchmark.cost[benchmark.tasks == task, column].mean() for task in ("easy", "hard")]
    return float(np.mean(parts))


def test_the_gap_is_to_the_next_llm(pool):
    means = pool.test.cost.mean(axis=0)
    assert page.said_gap(pool) == f"{means[2] / means[1]:.1f} times that of medium, the next"
    assert page.said_gap(replace(pool, backup="medium")) == f"{means[1] / means[2]:.1f} times that of large, the next"


def test_results_are_recorded_in_the_ledgers_units(pool):
    record = Record(page="energy")
    record.use(pool.priced)
    chosen, test = page.choices_of(pool)
    found = energy.results(chosen, test, "measured", backup=pool.backup, n_resamples=50)
    assert page.record_results(record, found) is found
    page.record_results(record, found, "modelled")
    units = {r["id"]: r["unit"] for r in record.records}
    assert units["energy/measured/easy/energy"] == "Wh"
    assert units["energy/measured/easy/saving"] == "%"
    assert units["energy/modelled/hard/backup-minus-always-large"] == "Wh"
    assert len(units) == 2 * len(found)


# --- tables ----------------------------------------------------------------------------------------------------------


def test_table_5_stands_beside_the_papers(pool):
    test = replace(pool.test, tasks=np.where(pool.test.tasks == "easy", "arc-challenge", "elsewhere"))
    found = energy.results([energy.all_at(test)], test, "table-5", n_resamples=50)
    numbers, shown = page.table_5(found)
    assert numbers.loc["macro", "saving"] == 0
    row = shown.loc["arc-challenge"]
    assert "paper: 0.231" in row["Energy (Wh)"]
    assert "paper: 98.29%" in row["Saving (%)"]
    assert "paper: 6.880" in row["Backup: the average (Wh)"]
    assert "paper: 6.880" in row["Backup: as worded (Wh)"]
    assert "paper" not in shown.loc["elsewhere"].str.cat()
    assert shown.loc["all at GPT-4, the paper", "Energy (Wh)"] == "13.529"
    assert "a saving of 0.0 % (0.0 to 0.0); 0.0% of the prompts" in page.said_table(found, "table-5")


def test_measured_table_names_energies_in_three_digits(pool):
    small = [np.zeros(len(pool.test), dtype=int)] * 2
    found = energy.results(small, pool.test, "measured", n_resamples=50)
    numbers, shown = page.measured_table(found)
    assert numbers.loc["macro", "energy"] == pytest.approx(_macro(pool.test, 0))
    assert shown.loc["mean over datasets", "Saving (%)"].startswith("99.0")
    # The small LLM is always right on easy prompts and never on hard ones, where the large one is right at times.
    better = (pool.test.quality[:, 2] > pool.test.quality[:, 0])[pool.test.tasks == "hard"].mean()
    assert shown.loc["hard", "rerouted"] == f"{better:.1%}"
    assert shown.loc["easy", "quality"] == "1.000"


def test_the_sources_table_has_ratios_to_the_smallest_size():
    by_size = pd.DataFrame(
        {
            "size": ["7B to 8B", "70B", "70B"],
            "source": ["one", "one", "other"],
            "wh": [0.02, 0.5, 0.25],
            "low": [0.01, 0.5, 0.25],
            "high": [0.03, 0.5, 0.25],
            "n": [3, 1, 1],
            "ratio": [1.0, 25.0, np.nan],
        }
    )
    numbers, shown = page.source_table(by_size)
    assert list(numbers.index) == ["7B to 8B", "70B"]
    assert numbers.loc["70B", "one"] == 25
    assert shown.loc["7B to 8B", "one"] == "0.0200<br><small>0.0100 to 0.0300</small><br>× 1.0"
    assert shown.loc["70B"].tolist() == ["0.500<br>× 25.0", "0.250"]
    assert shown.loc["7B to 8B", "other"] == "–"
    assert page.said_ratios(by_size) == "25.0 in one"


def test_price_and_energy_are_ranked_side_by_side(monkeypatch):
    tables = {"ai-energy-score": [3.0, 2.0, 1.0], "ml-energy": [1.0, 2.0, 3.0]}
    models = ["small", "medium", "large"]
    monkeypatch.setattr(energy_tables, "energy_table", lambda source, _: dict(zip(models, tables[source], strict=True)))
    shown, agreement = page.price_table(made_up("USD per prompt"), {})
    assert agreement == {"ai-energy-score": -1.0, "ml-energy": 1.0}
    assert list(shown.index) == models
    assert shown["rank"].tolist() == [1, 2, 3]
    assert shown["Wh, AI Energy Score"].tolist() == ["3.00 (rank 3)", "2.00 (rank 2)", "1.00 (rank 1)"]
    assert page.said_agreement(agreement) == "-1.00 with AI Energy Score and 1.00 with ML.ENERGY"


def test_rules_differ_by_what_an_average_hides(pool):
    table = {"small": 0.5, "medium": 0.6, "large": 1.0}
    numbers, shown = page.rules_table(pool, table, "label")
    assert list(numbers.columns) == ["measured", "own average", "published"]
    assert set(numbers.index) == {"easy", "hard", "macro"}
    chosen, test = page.choices_of(pool)
    by_hand = 100 - 100 * np.mean([np.array([0.5, 0.6, 1.0])[some[test.tasks == "easy"]].mean() for some in chosen])
    assert numbers.loc["easy", "published"] == pytest.approx(by_hand)
    off = numbers.loc["easy", "published"] - numbers.loc["easy", "measured"]
    assert shown.loc["easy", "published: points off"] == f"{off:+.1f}"
    largest = (numbers["published"] - numbers["measured"])[["easy", "hard"]].abs().max()
    mean = abs(numbers.loc["macro", "published"] - numbers.loc["macro", "measured"])
    assert page.said_rules(numbers).endswith(f"{largest:.1f} points with published ({mean:.1f} on the mean)")


def test_spread_is_drawn_as_it_is_listed(pool):
    frame = energy.spread(pool.test)
    shown = page.spread_table(frame)
    assert list(shown.index) == pool.test.models
    (axes,) = page.spread_plot(frame, WH).axes
    drawn = {line.get_label(): line.get_xdata() for line in axes.lines if line.get_label() in pool.test.models}
    for model in pool.test.models:
        means = frame[(frame["model"] == model) & (frame["dataset"] != "all")].sort_values("dataset")["mean"]
        assert drawn[model].tolist() == means.tolist()
    shares = energy.explained(pool.test)
    assert f"explains {shares.loc['all', 'by-model']:.1%} of the variance" in page.said_explained(shares)


# --- deferral curves -------------------------------------------------------------------------------------------------


def test_a_decision_on_averages_pays_for_the_call(pool):
    estimates, test = page.stacked(pool)
    expected = np.array(WATT_HOURS)
    paid, earned = page.curve_on_averages(estimates["k-nn"], test.quality, test.cost, expected)
    curve = deferral_curve(estimates["k-nn"], test.quality, expected)
    rows = np.arange(len(test))
    for place, lam in enumerate(curve.lam[::-1]):
        # Just above a breakpoint, so that rounding cannot tip a tie.
        chosen = energy.choose(estimates["k-nn"], expected, lam * (1 + 1e-9) + 1e-12)
        assert paid[place] == pytest.approx(test.cost[rows, chosen].mean())
        assert earned[place] == pytest.approx(test.quality[rows, chosen].mean())


def test_a_stacked_curve_is_the_mean_over_seeds(pool):
    estimates, test = page.stacked(pool)
    stacked = deferral_curve(estimates["semirouter-emb"], test.quality, test.cost)
    single = []
    for setting in pool.settings:
        predicted = experiment.predict(pool.fitted["semirouter-emb", setting.seed], setting)
        single.append(deferral_curve(predicted, setting.test.quality, setting.test.cost).at_lambda(0.05))
    assert stacked.at_lambda(0.05) == pytest.approx(np.mean(single, axis=0))


def test_panels_show_both_decisions_where_calls_differ(pool):
    both = page.panels({"made-up": pool})
    assert [panel.title for panel in both] == ["made-up: averages are known", "made-up: each call is known"]
    (one,) = page.panels({"made-up": replace(pool, source=page.PUBLISHED)})
    assert set(one.curves) == set(pool.methods)
    oracle = {panel.title: panel.curves["oracle"][1].max() for panel in both}
    assert len(set(oracle.values())) == 1, "at λ = 0 no cost counts"


def test_matching_the_large_llm_by_hand(pool):
    found, shown = page.match_table({"made-up": pool})
    frame = found["made-up"]
    assert frame.loc["best-single", "saving"] == pytest.approx(0.0)
    assert frame.loc["oracle", "saving"] == frame["saving"].max()
    assert list(shown.columns) == ["made-up: saving (%)", "made-up: area"]


# --- the router's own energy -----------------------------------------------------------------------------------------


def test_the_cache_saves_all_but_one_encoding():
    rows = page.router_rows({"encoding": 0.036, "scoring": 0.0036}, n_llms=10)
    # 65 W for 3.6 ms are 6.5e-5 Wh.
    seconds, wh = zip(*list(rows.values())[:3], strict=True)
    assert seconds == pytest.approx([0.0396, 0.3636, 0.0036])
    assert wh == pytest.approx([7.15e-4, 65.65e-4, 0.65e-4])
    llms = pd.DataFrame({"llm": ["meta/small", "large", "as routed"], "wh": [0.02, 1.0, 0.1]})
    shown = page.router_table(rows, llms)
    assert shown.loc["encoded once for all LLMs", "% of the LLMs' energy as routed"] == "0.71"
    assert shown.loc["encoded once for all LLMs", "% of small, which takes least"] == "3.6"


def test_a_missing_pool_is_named():
    assert page.needs("mess-plus") == "needs mess-plus, which is not among the pools of this run"


def test_the_real_tables_fill_the_page(real_data):
    tables = page.published()
    numbers, shown = page.proxy_table(tables)
    assert set(cells.SEVEN) <= set(numbers.index)
    assert shown.loc[cells.GPT_4, "figure of"] == "stated in the paper"
    assert (numbers > 0).all(axis=None)
