"""`raftkv completion`: what makes a shell complete the commands and options of `raftkv`."""

import click
from click.shell_completion import get_completion_class

from raftkv.cli.common import CommandError

_VARIABLE = "_RAFTKV_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, *, shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    \b
        bash:  raftkv completion bash > ~/.local/share/bash-completion/completions/raftkv
        zsh:   raftkv completion zsh > "${fpath[1]}/_raftkv"
        fish:  raftkv completion fish > ~/.config/fish/completions/raftkv.fish
    """  # noqa: D301 click wants the character
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandError(f"there is no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "raftkv", _VARIABLE).source())
