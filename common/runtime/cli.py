"""What every command line shares: one file a command, and errors that end as sentences with exit code 2.

This is the one place that turns an OSError into a sentence: what could not be done, where, and what to do.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.errors import FedgraftError
from common.runtime.offline import go_offline


def run_tool(
    package: str,
    commands: Mapping[str, str],
    argv: Sequence[str] | None,
    *,
    description: str | None,
    first: str,
    detail: str,
) -> int:
    """Parse, call one command's ``run``, return its exit code; only the chosen command's file is imported.

    Args:
        package: ``client`` or ``server``; its commands are modules of ``<package>.commands`` with `arguments`,
            `run` and EXAMPLE.
        commands: name -> what it is for.
        first, detail: the commands that the help text names to begin with and for more help.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if word in commands), None)
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=description,
        epilog=f"begin with: python -m {package} {first}\none command in detail: python -m {package} {detail} --help",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    _add_commands(parser, package, commands, chosen)
    arguments = parser.parse_args(words)
    go_offline()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    module = importlib.import_module(f"{package}.commands.{arguments.command}")
    return run_command(lambda: module.run(arguments))


def _add_commands(
    parser: argparse.ArgumentParser, package: str, commands: Mapping[str, str], chosen: str | None
) -> None:
    added = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in commands.items():
        if name != chosen:
            added.add_parser(name, help=purpose)
            continue
        module = importlib.import_module(f"{package}.commands.{name}")
        command = added.add_parser(
            name,
            help=purpose,
            description=module.__doc__,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawTextHelpFormatter,
        )
        module.arguments(command)


def run_command(command: Callable[[], int | None]) -> int:
    """Run a command; what a person can act on is printed, one sentence a line, and becomes exit code 2."""
    try:
        return command() or 0
    except FedgraftError as error:
        return _failed(f"{type(error).__name__}: {error}")
    except BrokenPipeError:  # `... | head` has seen enough; nothing more can be printed
        sys.stdout = None
        return 0
    except OSError as error:
        logging.getLogger(__name__).debug("where it happened", exc_info=error)
        return _failed(f"{type(error).__name__}: {os_sentence(error)}")
    except MemoryError:
        return _failed("MemoryError: this machine has no memory left; use fewer runtime.workers. " + AGAIN)
    except KeyboardInterrupt:
        _failed(f"Stopped. {AGAIN}")
        return 130


def _failed(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


AGAIN = "Start the same command again to continue after the last finished round."
FULL = (errno.ENOSPC, errno.EDQUOT)


def os_sentence(error: OSError) -> str:
    """What the operating system refused: the file, why, and what to do about it."""
    place = str(error.filename2 or error.filename or "")
    where = f"'{place}'" if place else "a file"
    if error.errno in FULL:
        return f"The disk is full: {where} could not be written{_room(place)}. Free some space. {AGAIN}"
    if error.errno == errno.EROFS:
        return f"{where} lies on a read-only file system. Choose a folder that can be written to. {AGAIN}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where} may not be read or written by this account. Change its permissions or choose another place."
    if error.errno == errno.ENOENT:
        return f"{where} does not exist. Check the path; paths are relative to '{Path.cwd()}'."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{where} is in the way: a folder is needed there and a file is found. Move it, or choose another place."
    if error.errno == errno.EISDIR:
        return f"{where} is a folder where a file is needed. Move it, or choose another place."
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"Too many files are open. Use fewer runtime.workers, or raise the limit (ulimit -n). {AGAIN}"
    if isinstance(error, ConnectionError | TimeoutError):
        return f"The other side does not answer ({error}). Check that it runs and that its address is right."
    return f"{where}: {error.strerror or error}. {AGAIN}"


def _room(place: str) -> str:
    """How much is left where a file was to be written."""
    folder = Path(place).absolute().parent if place else Path.cwd()
    while not folder.exists():
        folder = folder.parent
    return f" ({shutil.disk_usage(folder).free / 1e6:,.0f} MB free in '{folder}')"
