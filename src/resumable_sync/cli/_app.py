"""The command `resumable-sync` itself."""

import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from resumable_sync.cli._demo import demo
from resumable_sync.cli._output import Output
from resumable_sync.cli._report import report
from resumable_sync.cli._status import ExitStatus, status_of_error
from resumable_sync.cli._store_commands import dead_letters, jobs, reset, show, stop
from resumable_sync.cli._sync_commands import plan, run, verify
from resumable_sync.cli._top import top

__all__ = ["app", "main"]

NAME = "resumable-sync"
COMPLETION = "_RESUMABLE_SYNC_COMPLETE"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="""
    \b
    Exit status:
       0  completed, and everything was delivered
       1  failed, or a verification found differences
       2  usage: the command line or the sync file cannot work; nothing was done
       3  held: another process works on the job
       4  incomplete: the source is exhausted, some records are dead letters
      75  interrupted, and the next run goes on there
    """,
)
@click.version_option(package_name="resumable_sync")
def app() -> None:
    """Run full syncs that survive being killed, and look after them.

    \b
      resumable-sync run sync.toml      copy what it says; after any death, go on where it stopped
      resumable-sync plan sync.toml     what run would do, and why
      resumable-sync verify sync.toml   prove that nothing is missing
      resumable-sync top                watch all jobs of a store
      resumable-sync report JOB         tell the story of a job on a page

    The store is that of the sync file (--config, by default sync.toml), or a database (--store); without either it is
    the URL in RESUMABLE_SYNC_STORE, or the SQLite file resumable_sync.db.
    """


@app.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> ExitStatus:
    """Print what makes SHELL complete commands, options and the names of jobs.

    It prints what a shell reads, and so has no --json.

    \b
      resumable-sync completion bash >> ~/.bashrc
      resumable-sync completion zsh >> ~/.zshrc
      resumable-sync completion fish > ~/.config/fish/completions/resumable-sync.fish
    """
    made = get_completion_class(shell)
    if made is not None:
        click.echo(made(app, {}, NAME, COMPLETION).source())
    return ExitStatus.COMPLETED


for command in (run, plan, verify, jobs, show, report, stop, reset, dead_letters, top, demo):
    app.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What stands behind the name of the command. None: those of the process.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return int(app.main(given, prog_name=NAME, complete_var=COMPLETION, standalone_mode=False) or 0)
    except click.ClickException as error:
        if "--json" in given:
            Output(as_json=True).error(error)
        else:
            error.show()
        return ExitStatus.USAGE
    except click.Abort:
        click.echo("nothing was done", err=True)
        return ExitStatus.USAGE
    except BrokenPipeError:
        # Who reads has seen enough, as `head` has; Python would complain of it once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return ExitStatus.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a command ends with a sentence and a status
        output = Output(as_json="--json" in given, verbose=bool({"-v", "--verbose"} & set(given)))
        output.error(error)
        return status_of_error(error)
