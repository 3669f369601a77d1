"""``redisha convert FILE``: the same configuration in redisha's own form."""

from pathlib import Path

import click

from redisha.config.dump import to_yaml
from redisha.config.load import load


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def convert(file: Path) -> None:
    """Print FILE in redisha's own form.

    What became of a file of another form, and what it says and redisha does otherwise, stands in comments at the top.
    Passwords from the environment and from files stay references. The exit code is 1, and nothing is printed, when
    FILE cannot be run.
    """
    loaded = load(file)
    comments = sorted([*loaded.notes, *loaded.warnings], key=lambda problem: problem.line or 0)
    click.echo(to_yaml(loaded.config, str(file), comments), nl=False)
