"""``vidanon models``: list, fetch and verify what the pipeline downloads."""

from __future__ import annotations

import click


@click.group()
def models() -> None:
    """The networks: where they come from, their licences, and whether they are here."""


@models.command("list")
def list_models() -> None:
    """List all models with role, package, licence and state."""
    from vidanon.models.registry import ModelStore, load_registry

    store = ModelStore()
    click.echo(f"folder: {store.root}")
    for entry in load_registry().values():
        state = "missing or altered" if store.problem(entry.name) else "present"
        click.echo(f"\n{entry.name} ({entry.group}; {state})")
        click.echo(f"  role      {entry.role}")
        click.echo(f"  package   {entry.package}=={entry.version}")
        click.echo(f"  licence   {entry.licence}")
        click.echo(f"  data      {entry.training_data}")
        click.echo(f"  url       {entry.url}")


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--offline", is_flag=True, help="Fetch nothing; only say what is missing.")
def fetch(names: tuple[str, ...], offline: bool) -> None:
    """Fetch models with pip and check them; all of them without a NAME."""
    from vidanon.models.registry import ModelStore, names_in

    store = ModelStore(offline=offline)
    for name in names or names_in():
        click.echo(f"{name}: {'fetched' if store.fetch(name) else 'present'}")


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Check size and sha256 of models; all of them without a NAME."""
    from vidanon.errors import ModelsError
    from vidanon.models.registry import ModelStore, names_in

    store = ModelStore()
    bad = []
    for name in names or names_in():
        problem = store.problem(name)
        click.echo(f"{name}: {problem or 'ok'}")
        if problem:
            bad.append(name)
    if bad:
        raise ModelsError(f"{len(bad)} not usable; run 'vidanon models fetch {' '.join(bad)}'")


@models.command()
def convert() -> None:
    """Convert all networks for OpenVINO now; otherwise the first run does it.

    They are kept in the folder "converted" beside the models. Do this where that folder will be read-only, as
    in an image of a container: each run would convert again.
    """
    from vidanon.conversion import convert as convert_all
    from vidanon.models.registry import ModelStore

    for name in convert_all(ModelStore()):
        click.echo(name)


@models.command("path")
@click.argument("name")
def show_path(name: str) -> None:
    """Print where a checked model or the sample clip lies."""
    from vidanon.models.registry import ModelStore

    click.echo(ModelStore().path(name))
