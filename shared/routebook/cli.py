"""The `routebook` command.

Exit codes: 0 all went well, 1 a run or a build failed, 2 the user asked for something impossible.
Heavy imports happen inside the commands that need them, so that a refusal takes no longer than a glance.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from routebook.errors import RunFailed, UserError, suggest
from routebook.paths import data_dir, project_root

PROFILE = click.option(
    "--profile",
    type=click.Choice(["quick", "paper"]),
    default="quick",
    show_default=True,
    help="Sizes: quick takes minutes on a laptop, paper takes the paper's own.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.version_option(package_name="llm-routing-replicated", message="%(version)s")
def cli(quiet: bool) -> None:
    """Rerun the chapters of *LLM Routing, Replicated* and build the book."""
    if quiet:
        os.environ["ROUTEBOOK_QUIET"] = "1"


@cli.command("list")
def list_() -> None:
    """List chapters and datasets, and say which data is present."""
    from routebook import datasets, runs

    click.echo("Chapters")
    for chapter in runs.chapters().values():
        click.echo(f"  {chapter.name:<16} {chapter.title}")
    where = data_dir()
    click.echo(f"\nDatasets (ROUTEBOOK_DATA is {'set' if where else 'not set'})")
    for name in datasets.names():
        status = datasets.status(name)
        state = "present" if status.present else f"absent: routebook data pull {name}" if _pullable(name) else "absent"
        click.echo(f"  {name:<16} {status.origin:<10} {state}")


@cli.command()
@click.argument("chapter")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def params(chapter: str, as_json: bool) -> None:
    """List the parameters of a CHAPTER: what each takes, its quick and its paper value."""
    from routebook import runs

    rows = runs.chapter(chapter).params.describe()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(f"{row['name']} = {json.dumps(row['quick'])}")
        click.echo(f"    {row['help']}")
        paper = "" if row["paper"] == row["quick"] else f"; the paper's: {json.dumps(row['paper'])}"
        click.echo(f"    takes {row['expects']}{paper}")


@cli.command()
@click.argument("chapter")
@click.option("-p", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a parameter; may be repeated.")
@PROFILE
@click.option("--dataset", help="Short for -p dataset=NAME.")
@click.option("--out", type=click.Path(path_type=Path), help="Output folder [_build/runs/CHAPTER/DIGEST].")
def run(chapter: str, parameters: tuple[str, ...], profile: Any, dataset: str | None, out: Path | None) -> None:
    """Run a CHAPTER headless with papermill and write its notebook, results, tables and figures."""
    from routebook import runs

    texts = _pairs(parameters)
    if dataset is not None:
        if texts.get("dataset", dataset) != dataset:
            raise UserError(f"--dataset {dataset} and -p dataset={texts['dataset']} disagree; give one of them")
        texts["dataset"] = dataset
    found = runs.chapter(chapter)
    plan = runs.plan(found, found.params.parse(texts, profile), out)
    click.echo(f"{chapter}: {plan.params.profile} profile on {plan.dataset}, digest {plan.digest}", err=True)
    done = runs.execute(plan)
    click.echo(f"{plan.out}: {done['seconds']:.0f} s, peak memory {done['peak_memory_mib']} MiB")


@cli.command()
@PROFILE
@click.option("--chapters", help="Comma-separated: rerun only these; the others keep their latest run.")
@click.option("--fresh", is_flag=True, help="Rerun even what has not changed.")
def build(profile: Any, chapters: str | None, fresh: bool) -> None:
    """Run the chapters whose code, data or parameters changed, and build the book into _build/html."""
    from routebook import report, runs, site

    root = project_root()
    names = _names(chapters)
    for name in names or ():
        runs.chapter(name, root)
    html, built = site.build(root, profile, names, fresh, say=lambda line: click.echo(line, err=True))
    for line in report.summary(root, built):
        click.echo(line)
    click.echo(f"The book: {html / 'index.html'}")


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), help="Output folder, new or empty [_build/student].")
@click.option("--chapters", help="Comma-separated: only these [all that have exercises].")
def student(out: Path | None, chapters: str | None) -> None:
    """Write the notebooks without the solutions to their exercises, whose checks stay."""
    from routebook import teaching

    root = project_root()
    written = teaching.write_student_edition(root, out or root / "_build" / "student", _names(chapters))
    for path in written:
        click.echo(path)


@cli.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Output folder, new or with earlier slides [_build/slides]."
)
@click.option("--chapters", help="Comma-separated: only these [all that have been run].")
def slides(out: Path | None, chapters: str | None) -> None:
    """Make slides of the chapters' last runs, which open in a browser without a network."""
    from routebook import slides as decks

    root = project_root()
    for path in decks.write_slides(root, out or root / "_build" / "slides", _names(chapters)):
        click.echo(path)


@cli.command()
@click.option("--paper", help="Only this paper's claims.")
@click.option("--json", "as_json", is_flag=True, help="One object a claim, and one a published table or figure.")
def ledger(paper: str | None, as_json: bool) -> None:
    """Show what the papers published, what was found, and each claim's verdict."""
    from routebook import ledger as ledgers
    from routebook import report, scorecard

    root = project_root()
    found = ledgers.discover(root)
    if paper is not None:
        names = [entry.paper for entry in found]
        if paper not in names:
            raise UserError(
                f"--paper: there is no ledger of {paper!r}{suggest(paper, names)} (papers: {', '.join(names)})"
            )
        found = [entry for entry in found if entry.paper == paper]
    results = report.latest_results(root, [entry.paper for entry in found])
    evaluated = ledgers.evaluate_all(found, results)
    if as_json:
        click.echo(scorecard.as_json(evaluated), nl=False)
        return
    for line in report.ledger_lines(evaluated):
        click.echo(line)


@cli.group()
def data() -> None:
    """Look after the datasets."""


@data.command("list")
def data_list() -> None:
    """List every dataset: what it holds, whether it is here, what is missing."""
    from routebook import datasets

    for name in datasets.names():
        card, status = datasets.info(name), datasets.status(name)
        click.echo(f"{name}: {card.title}")
        click.echo(f"    origin {status.origin}; licence: {card.licence}")
        if status.present:
            click.echo(f"    present: {status.where}")
        else:
            click.echo(f"    absent: {', '.join(status.missing) or 'not fetched'}")


@data.command("check")
@click.argument("dataset")
def data_check(dataset: str) -> None:
    """Verify a DATASET's files: hashes, columns, row counts, values."""
    from routebook import datasets

    datasets.check(dataset)
    click.echo(f"{dataset}: sound")


@data.command("pull")
@click.argument("dataset")
@click.option("--revision", help="Commit, branch or tag of the hub repository [its newest commit, which is recorded].")
@click.option("--variant", help="Which of several published forms (see the dataset's card), for example 5shot.")
@click.option("--prices", type=click.Path(path_type=Path), help="CSV of prices per million tokens (SPROUT).")
def data_pull(dataset: str, revision: str | None, variant: str | None, prices: Path | None) -> None:
    """Fetch a DATASET's public release from its hub and convert it to a safe columnar format."""
    from routebook.datasets.pull import pull

    where = pull(dataset, revision=revision, variant=variant, prices=prices)
    click.echo(f"{dataset}: in {where}")


def _pullable(name: str) -> bool:
    from routebook import datasets

    return datasets.info(name).hub is not None


def _names(chapters: str | None) -> list[str] | None:
    return None if chapters is None else [name.strip() for name in chapters.split(",") if name.strip()]


def _pairs(parameters: tuple[str, ...]) -> dict[str, str]:
    texts = {}
    for pair in parameters:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"-p {pair}: expected NAME=VALUE, for example -p n_trials=3")
        texts[name.strip()] = value.strip()
    return texts


def main() -> None:
    """Run the command and turn what went wrong into one readable message and an exit code."""
    # A terminated run must leave as an interrupted one does: its partial folder removed, its kernel stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        cli.main(standalone_mode=False)
    except UserError as error:
        _fail(str(error), 2)
    except click.UsageError as error:
        _fail(error.format_message(), 2)
    except RunFailed as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        # The reader (`| head`) has gone: what is left to print at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; nothing half-written was kept", 130)


def _fail(message: str, code: int) -> None:
    click.echo(f"routebook: {message}", err=True)
    sys.exit(code)
