"""`python -m app completion`: completion for the shell."""

import typer

_SCRIPT = """\
# Completes `python -m app` in bash and zsh: eval "$(python -m app completion)"
if [ -n "${ZSH_VERSION-}" ]; then autoload -U +X bashcompinit && bashcompinit; fi
_social_posts_api() {
    local words=""
    [ "${COMP_WORDS[1]-}" = -m ] && [ "${COMP_WORDS[2]-}" = app ] || return
    case "$COMP_CWORD ${COMP_WORDS[3]-}" in
        "3 "*) words="--help --version NAMES" ;;
CASES
    esac
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _social_posts_api python python3
"""


def completion() -> None:
    """Print shell code that completes `python -m app` in bash and zsh.

    To use it, add this line to ~/.bashrc or ~/.zshrc: eval "$(python -m app completion)"
    """
    from app.cli.commands import COMMANDS, HIDDEN, load  # noqa: PLC0415 - that module imports this one.

    names = [name for name in COMMANDS if name not in HIDDEN]
    cases = []
    for name in names:
        command = load(name)
        words = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        words += [*getattr(command, "commands", ()), "--help"]
        cases.append(f'        *" {name}") words="{" ".join(dict.fromkeys(words))}" ;;')
    typer.echo(_SCRIPT.replace("NAMES", " ".join(names)).replace("CASES", "\n".join(cases)), nl=False)
