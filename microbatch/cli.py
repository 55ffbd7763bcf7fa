"""The command ``microbatch``; typer and rich are imported on use, with the way to get them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from microbatch.errors import MicrobatchError

if TYPE_CHECKING:
    import typer

_KILLS = 8


def main() -> None:
    """Run the command line; exit code 1 for an error or an unequal result, 2 for a wrong option."""
    try:
        command = app()
    except ImportError as cause:
        sys.exit(f"the command line needs {cause.name}, which is not installed: pip install 'microbatch[demo]'")
    try:
        command()
    except MicrobatchError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def app() -> typer.Typer:
    """Return the commands; ImportError without typer."""
    import typer

    commands = typer.Typer(no_args_is_help=True, add_completion=False, help="Streaming DataFrames in one Python process.")

    @commands.callback()
    def root() -> None:
        """Keep the name of a command compulsory, also while there is one only."""

    @commands.command()
    def demo(
        output: Path = typer.Option(Path("demo-output"), help="Folder for input, checkpoint, table and picture."),
        days: int = typer.Option(365, min=1, max=365, help="How many days of 2013."),
        crash: bool = typer.Option(False, "--crash", help="Kill the job with SIGKILL on its way, again and again."),
        seed: int = typer.Option(13, help="Chooses the moments of the kills."),
    ) -> None:
        """Count the flights that left New York in 2013 as a stream, and compare with one query over all of them."""
        from microbatch.demo import command

        if not command.run(output, days=days, kills=_KILLS if crash else 0, seed=seed):
            raise typer.Exit(1)

    return commands
