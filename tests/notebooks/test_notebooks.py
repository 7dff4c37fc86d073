"""Every notebook runs headless in the quick profile, and what it records makes sense."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys

import nbformat
import pytest

from replications.cscr.experiment import OUTCOMES
from replications.uniroute.trials import METHODS
from routebook import ledger, record, runs, site
from routebook.metrics import METRICS
from routebook.protocol import REFERENCES


@pytest.fixture(scope="session")
def simulated_run(root, tmp_path_factory):
    """The UniRoute chapter on simulated data, through the command line, as a user without data gets it."""
    out = tmp_path_factory.mktemp("runs") / "simulated"
    command = [sys.executable, "-m", "routebook", "run", "uniroute", "--dataset", "simulated", "--out", str(out)]
    done = subprocess.run([*command, "-p", "n_trials=3"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def built_runs(built, root):
    """The runs the built book shows, by notebook."""
    return {name: site.latest_run(chapter) for name, chapter in runs.chapters(root).items()}


@pytest.fixture(params=["built", "simulated"])
def uniroute(request):
    """A finished run of the UniRoute chapter: the book's own, and one on simulated data."""
    if request.param == "simulated":
        return request.getfixturevalue("simulated_run")
    return request.getfixturevalue("built_runs")["uniroute"]


def test_every_notebook_of_the_book_has_run(built_runs, root):
    assert set(built_runs) == set(runs.chapters(root))
    for name, folder in built_runs.items():
        run = json.loads((folder / "run.json").read_text())
        assert run["profile"] == "quick", name
        notebook = nbformat.read(folder / "notebook.ipynb", 4)
        assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code"), name
        said = [out.text for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"]
        assert not said, f"{name} writes to stderr: {said}"


def test_uniroute_results_make_sense(uniroute):
    results = {r["id"]: r for r in record.read_results(uniroute / "results.json")}
    area = {method: results[f"area/{method}"] for method in METHODS}
    assert math.isnan(area.pop("best-single")["value"]), "a single point has no area"
    worst, best = area.pop("random")["value"], area.pop("oracle")["value"]
    for method, found in area.items():
        assert worst < found["value"] < best, method
        assert found["low"] <= found["value"] <= found["high"], method
    for method in METHODS:
        assert 0 < results[f"qnc/{method}"]["value"] <= 1 + 1e-9, method
        assert 0 < results[f"peak/{method}"]["value"] <= 1, method
    assert results["qnc/oracle"]["value"] < results["qnc/k-means"]["value"]


def test_uniroute_says_what_it_ran_on(uniroute):
    run = json.loads((uniroute / "run.json").read_text())
    used = {(r["dataset"], r["origin"]) for r in record.read_results(uniroute / "results.json")}
    assert (run["dataset"], run["origin"]) in used
    assert used <= {(run["dataset"], run["origin"]), ("simulated", "simulated")}


def test_uniroute_evaluates_every_claim(uniroute, root):
    found = ledger.load(root / "replications/uniroute/ledger.yaml")
    run = json.loads((uniroute / "run.json").read_text())
    verdicts = ledger.of_pages(found, record.read_results(uniroute / "results.json"))
    assert len(verdicts) == sum(found.page(str(claim.reads)) is None for _, claim in found.claims)
    assert all(v.verdict != "not-run" for v in verdicts)
    if run["origin"] != "real":
        assert not any(v.verdict in ("reproduced", "partly", "not-reproduced") for v in verdicts)


@pytest.fixture(scope="session")
def small_pages(root, tmp_path_factory):
    """Chapters and pages on the pool that ships with the book, as readers without data get them, but smaller."""
    sizes = {
        "uniroute-pools": ["n_trials=2", "size_trials=2", "sample_sizes=50,100", "max_prompts=800", "n_validation=150"],
        "uniroute-settings": ["n_trials=2", "max_prompts=800", "cluster_grid=5,10", "hidden_grid=50"],
        "radialrouter": ["n_seeds=2", "max_prompts=600", "steps=20"],
        "radialrouter-ablations": ["n_seeds=2", "max_prompts=600", "steps=10"],
        "cscr": ["n_seeds=2", "max_prompts=800", "min_steps=20", "epochs=2", "n_bootstrap=200"],
        "cscr-ablations": ["n_seeds=2", "max_prompts=600", "min_steps=10", "epochs=1"],
        "cscr-shifts": [
            *["n_seeds=2", "max_prompts=800", "min_steps=20", "epochs=2", "n_mixes=3", "label_budgets=25,50"],
            *["index_sizes=10,100,1000", "n_lookups=200"],
        ],
        "primer": [],
        "metrics": ["n_splits=2", "max_prompts=400", "grid_sizes=5,20,200"],
        "your-router": ["n_splits=2", "max_prompts=400", "n_resamples=50"],
        "semirouter": ["n_seeds=2", "max_prompts=400", "epochs=1", "backbone_epochs=1"],
        "semirouter-energy": ["n_seeds=2", "max_prompts=600", "epochs=2", "backbone_epochs=2"],
        "semirouter-sparsity": [
            *["n_seeds=2", "max_prompts=400", "epochs=1", "backbone_epochs=1"],
            *["new_labels=10,50", "pool_sizes=7,20"],
        ],
    }
    folder = tmp_path_factory.mktemp("pages")
    for page, given in sizes.items():
        pool = "pools" if runs.chapter(page, root).params.MANY else "dataset"
        data = [f"{pool}=tinypool"] * (page != "primer")
        words = [part for setting in [*data, *given] for part in ("-p", setting)]
        command = [sys.executable, "-m", "routebook", "run", page, "--out", str(folder / page), *words]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return {page: folder / page for page in sizes}


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
@pytest.mark.parametrize(
    "page",
    [
        "uniroute-pools",
        "uniroute-settings",
        "radialrouter",
        "radialrouter-ablations",
        "cscr",
        "cscr-ablations",
        "cscr-shifts",
        "semirouter",
        "semirouter-energy",
        "semirouter-sparsity",
    ],
)
def test_a_page_evaluates_every_claim_of_its_own(request, root, source, page):
    folder = request.getfixturevalue(source)[page]
    results = record.read_results(folder / "results.json")
    paper, _, name = page.partition("-")
    found = ledger.load(root / f"replications/{paper}/ledger.yaml")
    assert all(r["id"].startswith(f"{name}/") for r in results if name)
    verdicts = ledger.of_pages(found, results)
    firsts = [claim.reads if isinstance(claim.reads, str) else claim.reads[0] for _, claim in found.claims]
    assert len(verdicts) == sum((found.page(first) or "") == name for first in firsts)
    assert all(v.verdict != "not-run" for v in verdicts)
    if all(r["origin"] != "real" for r in results):
        assert not any(v.verdict in ("reproduced", "partly", "not-reproduced") for v in verdicts)


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_routers_lie_between_chance_and_the_oracle_on_every_pool(request, source):
    folders = request.getfixturevalue(source)
    results = {r["id"]: r for page in ("uniroute-pools", "uniroute-settings") for r in _results(folders[page])}
    pools = json.loads((folders["uniroute-pools"] / "run.json").read_text())["dataset"].split(", ")
    for pool in pools:
        found = {m: results[f"pools/{pool}/area/{m}"] for m in METHODS if m != "best-single"}
        worst, best = found.pop("random")["value"], found.pop("oracle")["value"]
        for method, area in found.items():
            assert worst < area["value"] < best, (pool, method)
            assert area["low"] <= area["value"] <= area["high"], (pool, method)
        difference = results[f"pools/{pool}/area-difference/k-means/zero-router"]["value"]
        assert difference == pytest.approx(found["k-means"]["value"] - found["zero-router"]["value"], abs=1e-9)
        static = {m: results[f"settings/static/{pool}/area/{m}"]["value"] for m in ("mlp", "k-means", "oracle")}
        assert max(static["mlp"], static["k-means"]) < static["oracle"], pool
    for quantity in ("training-size", "pool-size"):
        added, retrained = (
            results[f"settings/adding/slope/{way}/{quantity}"]["value"] for way in ("uniroute", "static")
        )
        assert added < retrained, "adding an LLM is to cost less than retraining as things grow"


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_radialrouter_lies_below_the_oracle_in_every_scenario(request, source):
    results = {r["id"]: r["value"] for r in _results(request.getfixturevalue(source)["radialrouter"])}
    for scenario in ("performance-first", "balance", "cost-first"):
        scores = {
            key.rpartition("/")[2]: value
            for key, value in results.items()
            if key.startswith(f"table-1/{scenario}/score/")
        }
        assert scores["oracle"] == max(scores.values())
        difference = results[f"table-1/{scenario}/score-difference/radial-router/random"]
        assert difference == pytest.approx(scores["radial-router"] - scores["random"], abs=1e-9)
        share = results[f"table-1/{scenario}/share-of-oracle"]
        assert 0 < share < 100
    first, last = (results[f"table-1/{s}/performance/oracle"] for s in ("performance-first", "cost-first"))
    assert first >= last, "where cost counts for nothing, the oracle gives up no performance for it"


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_cscr_lies_below_the_oracle_on_every_pool(request, source):
    folder = request.getfixturevalue(source)["cscr"]
    results = {r["id"]: r["value"] for r in _results(folder)}
    pools = json.loads((folder / "run.json").read_text())["dataset"].split(", ")
    for pool in pools:
        oracle = results[f"table-1/{pool}/oracle/area"]
        areas = {key.split("/")[2]: v for key, v in results.items() if re.fullmatch(f"table-1/{pool}/[^/]+/area", key)}
        routers = {method: area for method, area in areas.items() if "-minus-" not in method}
        assert len(routers) == 11
        assert oracle == max(routers.values())
        for rival in ("umr", "random", "dataset-oracle"):
            difference = results[f"table-1/{pool}/cscr-minus-{rival}/area"]
            assert difference == pytest.approx(routers["cscr"] - routers[rival], abs=1e-9)
        counted = sum(results[f"table-15/{pool}/{outcome}"] for outcome in OUTCOMES)
        by_band = sum(v for key, v in results.items() if key.startswith(f"table-14/{pool}/"))
        assert counted == pytest.approx(by_band), "Tables 14 and 15 count the same prompts"
        assert -2 <= results[f"figure-2/{pool}/within-minus-between"] <= 2


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_cscrs_ablations_agree_with_one_another(request, source):
    folder = request.getfixturevalue(source)["cscr-ablations"]
    results = {r["id"].removeprefix("ablations/"): r["value"] for r in _results(folder)}
    pools = json.loads((folder / "run.json").read_text())["dataset"].split(", ")
    for pool in pools:
        defaults = ("table-5/{}/cscr", "table-8/{}/bands-5", "table-9/{}/k-4", "table-10/{}/printed/gamma-0.2")
        areas = {results[f"{key.format(pool)}/area"] for key in (*defaults, "table-13/{}/width-x1")}
        assert len(areas) == 1, "the default setting is one training"
        signs = [results[f"table-10/{pool}/{sign}/gamma-0/area"] for sign in ("printed", "other")]
        assert signs[0] == signs[1], "without a penalty it has no sign"
        for sign in ("printed", "other"):
            assert 0 <= results[f"table-10/{pool}/{sign}/gamma-0.5/chosen-cost"] <= 1
        with_bands, without = (results[f"table-7/{pool}/{bands}/area"] for bands in ("with", "without"))
        assert results[f"table-7/{pool}/with-minus-without/area"] == pytest.approx(with_bands - without, abs=1e-9)
    assert results["gamma-sign/simulated/printed/slope"] > results["gamma-sign/simulated/other/slope"]


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_cscrs_shifts_lie_below_the_oracle_and_labels_cost_cscr_nothing(request, source):
    folder = request.getfixturevalue(source)["cscr-shifts"]
    results = {r["id"].removeprefix("shifts/"): r["value"] for r in _results(folder)}
    pools = json.loads((folder / "run.json").read_text())["dataset"].split(", ")
    assert f"table-2/{pools[0]}/cscr/area" in results
    for table in ("table-2", "table-3"):
        for pool in pools:
            areas = {k.split("/")[2]: v for k, v in results.items() if re.fullmatch(f"{table}/{pool}/[^/]+/area", k)}
            differences = {method: areas.pop(method) for method in list(areas) if "-minus-" in method}
            for method, area in areas.items():
                assert 0 < area <= areas["oracle"], (table, pool, method)
            for pair, difference in differences.items():
                a, b = pair.split("-minus-")
                assert difference == pytest.approx(areas[a] - areas[b], abs=1e-9)
    assert not any(key.startswith("table-3/mmlu-pro/cscr") for key in results), "MMLU-Pro has no fingerprints"
    spent = {key.split("/")[3] for key in results if key.startswith("newcomers/") and "/cscr/" in key}
    assert spent == {"0"}


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_the_primers_lambda_trades_quality_for_cost(request, source):
    results = {r["id"]: r["value"] for r in _results(request.getfixturevalue(source)["primer"])}
    spent = [v for key, v in results.items() if key.endswith("/mean cost, % of the dearest")]
    assert len(spent) > 3
    assert spent == sorted(spent, reverse=True)
    assert 0 < results["tinypool/area"] < results["tinypool/peak"] <= 1
    assert results["tinypool/qnc"] > 0


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_metrics_agree_where_they_must(request, source):
    folder = request.getfixturevalue(source)["metrics"]
    results = {r["id"]: r["value"] for r in _results(folder)}
    for pool in json.loads((folder / "run.json").read_text())["dataset"].split(", "):
        cells = {key.removeprefix(f"table/values-{pool}/"): value for key, value in results.items()}
        means = {key.removesuffix("/value"): v for key, v in cells.items() if re.fullmatch("[^/]+ / [^/]+/value", key)}
        assert len(means) == len(METRICS) * len(REFERENCES)
        for pair, value in means.items():
            metric = pair.split(" / ")[0]
            if not METRICS[metric].lower_is_better and not math.isnan(value):
                assert value <= means[f"{metric} / oracle"] + 1e-9, (pool, pair)
        assert math.isnan(means["area / best-single"])
        assert means["peak / k-nn"] >= means["score-0 / k-nn"], "no single trade-off beats the best one"
        assert means["apgr / zero-router"] == pytest.approx(0.5), "who does not read recovers what a coin does"
        taus = {
            key: v for key, v in results.items() if key.startswith(f"table/taus-{pool}/") and key.endswith("/value")
        }
        assert len(taus) == len(METRICS) * (len(METRICS) - 1) / 2
        assert all(-1 <= tau <= 1 for tau in taus.values())
        shares = [v for key, v in results.items() if key.startswith(f"table/flips-{pool}/") and key.endswith("/share")]
        assert shares
        assert all(0 <= share <= 1 for share in shares)
        errors = {
            int(key.split(" / ")[1]): v
            for key, v in results.items()
            if re.fullmatch(rf"table/grid-{pool}/log / \d+ / area/error", key)
        }
        assert errors[max(errors)] < errors[min(errors)], "a finer grid misses less"


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_the_readers_router_meets_the_same_protocol(request, source):
    results = {r["id"]: r["value"] for r in _results(request.getfixturevalue(source)["your-router"])}
    for prefix in ("", "own-data/"):
        for number in ("area", "peak"):
            found = {router: results[f"{prefix}{number}/{router}"] for router in ("random", "yours", "oracle")}
            assert found["random"] < found["yours"] < found["oracle"], (prefix, number)
    for rival in ("zero-router", "dataset-oracle"):
        difference = results[f"difference/area/{rival}"]
        assert difference == pytest.approx(results["area/yours"] - results[f"area/{rival}"], abs=1e-9)


def test_the_synthesis_agrees_with_itself_on_every_pool(built_runs):
    folder = built_runs["synthesis"]
    results = {r["id"]: r for r in _results(folder)}
    values = {key: r["value"] for key, r in results.items()}
    areas = {tuple(key.split("/area/")): v for key, v in values.items() if "/area/" in key}
    places = {place for place, _ in areas}
    run = json.loads((folder / "run.json").read_text())
    assert {f"static/{pool}" for pool in run["dataset"].split(", ")} <= places
    assert sum(place.startswith("new-llms/") for place in places) > 0
    for place in places:
        here = {method: value for (where, method), value in areas.items() if where == place}
        assert here["oracle"] == max(here.values()), place
        assert here["random"] < here["oracle"], place
        for key in (key for key in values if key.startswith(f"{place}/") and "-minus-" in key):
            a, b = key.split("/")[2].split("-minus-")
            assert values[key] == pytest.approx(here[a] - here[b], abs=1e-9)
            # Paired intervals: of the differences seed by seed, around their mean.
            assert results[key]["low"] <= values[key] <= results[key]["high"]
            assert results[key]["n"] == run["parameters"]["n_seeds"]
    losses = [key for key in values if key.startswith("other-prompts/") and "/loss/" in key]
    assert losses
    for key in losses:
        _, pool, source, _, method = key.split("/")
        gap = areas[f"with-{source}/{pool}", method] - areas[f"without-{source}/{pool}", method]
        assert values[key] == pytest.approx(gap, abs=1e-9)
    ranks = {key.split("/")[2]: v for key, v in values.items() if key.startswith("ranks/all/")}
    k = len(set(ranks) - {"p-value", "critical-difference"})
    assert sum(v for key, v in ranks.items() if key not in ("p-value", "critical-difference")) == k * (k + 1) / 2
    times = [v for key, v in values.items() if key.startswith("cost/")]
    assert times
    assert min(times) >= 0


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_semirouter_lies_between_the_worst_choice_and_the_oracle(request, source):
    results = {r["id"]: r["value"] for r in _results(request.getfixturevalue(source)["semirouter"])}
    routed = {m: results[f"table-1/macro/{m}/routed-quality"] for m in ("semirouter-emb", "random", "oracle")}
    assert 0 <= routed["random"] <= routed["oracle"] <= 100
    assert 0 <= routed["semirouter-emb"] <= routed["oracle"]
    difference = results["table-1/semirouter-emb-minus-random/routed-quality"]
    assert difference == pytest.approx(routed["semirouter-emb"] - routed["random"], abs=1e-9)
    assert results["table-1/macro/oracle/label-accuracy"] == 100
    assert results["table-2/emb/trainable"] == pytest.approx(2.069699)
    assert results["table-2/mlp/trainable"] == pytest.approx(2.527427)
    gain = results["table-3/full-minus-anchor/score"] + results["table-3/anchor-minus-div/score"]
    assert results["table-3/full-minus-div/score"] == pytest.approx(gain, abs=1e-9)
    scores = [value for key, value in results.items() if key.startswith("table-6/") and key.endswith("/score")]
    assert min(scores) >= 0
    assert max(scores) <= 1


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_routing_for_energy_never_beats_the_oracle(request, source):
    results = {r["id"]: r["value"] for r in _results(request.getfixturevalue(source)["semirouter-energy"])}
    pools = {key.split("/")[2] for key in results if key.startswith("energy/match/")}
    for pool in pools:
        areas = {key: value for key, value in results.items() if key.startswith(f"energy/match/{pool}/")}
        areas = {key.split("/")[3]: value for key, value in areas.items() if key.endswith("/area")}
        assert areas["oracle"] == max(areas.values()), pool
    parts = ("energy/table-5/", "energy/measured/", "energy/modelled/")
    rows = [key.rpartition("/")[0] for key in results if key.startswith(parts) and key.endswith("/energy")]
    assert rows
    for row in rows:
        alone = results[f"{row}/all-at-gpt-4" if "/table-5/" in row else f"{row}/always-large"]
        took = results[f"{row}/energy"]
        assert 0 < took <= alone * (1 + 1e-9), row
        assert results[f"{row}/saving"] == pytest.approx(100 * (1 - took / alone), abs=1e-9), row
    assert results["energy/router/wh-per-prompt"] > 0


@pytest.mark.parametrize("source", ["built_runs", "small_pages"])
def test_sparse_labels_leave_routers_below_the_oracle_and_a_new_llm_moves_no_other(request, source):
    folder = request.getfixturevalue(source)["semirouter-sparsity"]
    results = {r["id"].removeprefix("sparsity/"): r["value"] for r in _results(folder)}
    pools = json.loads((folder / "run.json").read_text())["dataset"].split(", ")
    assert results["isolation/compared"] > 0
    assert results["isolation/max-change"] == 0
    for pool in pools:
        assert results[f"{pool}/oracle/label-accuracy"] == 100
        for metric in ("label-accuracy", "routed-quality"):
            found = {k.removeprefix(f"{pool}/"): v for k, v in results.items() if re.match(f"{pool}/.*/{metric}$", k)}
            found = {key.removesuffix(f"/{metric}"): value for key, value in found.items()}
            leads = {key: found.pop(key) for key in list(found) if "-minus-" in key}
            assert max(found.values()) == found["oracle"]
            assert min(found.values()) >= 0
            assert leads
            for key, value in leads.items():
                pair, share = key.split("/")
                ours, rival = pair.split("-minus-")
                other = found["bert-full/1" if rival == "bert-full" else f"{rival}/{share}"]
                assert value == pytest.approx(found[f"{ours}/{share}"] - other, abs=1e-9)
        moved = {
            key: value for key, value in results.items() if re.match(f"new-llm/{pool}/added/.*/others-change", key)
        }
        assert moved
        assert set(moved.values()) == {0.0}


def _results(folder):
    return record.read_results(folder / "results.json")


def test_plain_papermill_runs_the_same_notebook(root, tmp_path, simulated_run):
    import papermill

    settings = {"dataset": "simulated", "n_trials": 3}
    notebook = papermill.execute_notebook(
        root / "replications/uniroute/uniroute.ipynb",
        tmp_path / "out.ipynb",
        parameters=settings,
        cwd=tmp_path,
        kernel_name="python3",
        progress_bar=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    glued = {
        out.metadata["scrapbook"]["name"]: out
        for cell in notebook.cells
        for out in cell.get("outputs", [])
        if "scrapbook" in out.get("metadata", {})
    }
    ours = {r["id"]: r["value"] for r in record.read_results(simulated_run / "results.json")}
    for key in ("area/k-means", "qnc/k-nn", "area-difference/learned-map/k-means"):
        (text,) = glued[key].data.values()
        assert float(text) == ours[key], "the same seed gives the same numbers"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.ipynb"]


@pytest.mark.parametrize(
    ("parameters", "said"), [({"n_trials": "3"}, "found '3'"), ({"n_tirals": 3}, "did you mean 'n_trials'")]
)
def test_papermill_with_a_wrong_parameter_stops_in_the_second_cell(root, tmp_path, parameters, said):
    import papermill

    with pytest.raises(papermill.PapermillExecutionError, match=said) as stopped:
        papermill.execute_notebook(
            root / "replications/uniroute/uniroute.ipynb",
            tmp_path / "out.ipynb",
            parameters=parameters,
            cwd=os.fspath(tmp_path),
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    assert stopped.value.ename == "UserError"
