"""The way from the words of crictl's command line to the function of a verb."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from k3s import VERSION
from k3s.api import times
from k3s.base.clock import SystemClock
from k3s.cli.complaint import complain
from k3s.cli.crictl import settings
from k3s.cli.crictl.flags import Flag, Options, UsageError, parse
from k3s.cli.crictl.gotemplate import TemplateError
from k3s.cli.crictl.output import FormatError
from k3s.cli.crictl.session import Failed, Session, reason
from k3s.cli.crictl.verbs import GLOBAL, HELP, VERBS, Verb
from k3s.kubelet.runtime.connection import Connection
from k3s.kubelet.runtime.interface import RuntimeFailure

#: How long the runtime may take to answer at first, when nobody says.
_TIMEOUT_S = 2.0


def _help(verb: Verb | None) -> str:
    """What `--help` prints: of everything, or of one verb."""
    if verb is None:
        lines = [
            "NAME:\n   crictl - client for CRI",
            "",
            "USAGE:\n   crictl [global options] command [command options]",
        ]
        lines += ["", "COMMANDS:"]
        lines += [f"   {', '.join((each.name, *each.aliases)):<24}{each.help}" for each in VERBS]
        lines += ["", "GLOBAL OPTIONS:"]
        flags: tuple[Flag, ...] = GLOBAL
    else:
        lines = [f"NAME:\n   crictl {verb.name} - {verb.help}", "", f"USAGE:\n   {_usage(verb)}", "", "OPTIONS:"]
        flags = (*verb.flags, HELP)
    lines += [
        f"   {flag.shown:<32}{flag.help}{f' (default: {flag.default})' if flag.default else ''}" for flag in flags
    ]
    return "\n".join(lines)


def _usage(verb: Verb) -> str:
    return f"crictl {verb.name} [command options] {verb.args}".rstrip()


def find(word: str) -> Verb:
    """The verb of a name. Raises UsageError."""
    for verb in VERBS:
        if word == verb.name or word in verb.aliases:
            return verb
    raise UsageError(f'No help topic for "{word}": `crictl --help` lists the commands')


def main(args: Sequence[str], env: Mapping[str, str] = os.environ) -> int:
    """Runs crictl; answers its exit code."""
    clock, verb = SystemClock(), None
    try:
        options, rest = parse(args, GLOBAL, env, mixed=False)
        if options.on("version"):
            print(f"crictl version {VERSION}")
            return 0
        if options.on("help") or not rest or rest[0] in ("help", "h"):
            print(_help(find(rest[1]) if len(rest) > 1 else None))
            return 0
        verb = find(rest[0])
        own, words = parse(rest[1:], (*verb.flags, HELP), env, mixed=verb.mixed)
        if own.on("help"):
            print(_help(verb))
            return 0
        least, most = verb.words
        if len(words) < least or (0 <= most < len(words)):
            raise UsageError(f"{verb.name} takes other words: {_usage(verb)}")
        asyncio.run(_run(verb, options, own, words, env))
    except RuntimeFailure as failure:
        complain("fatal", reason(failure), clock.now())
        return 1
    except (UsageError, FormatError, TemplateError, times.TimeError) as error:
        complain("fatal", str(error), clock.now())
        return 1
    except Failed as failure:
        complain("fatal", str(failure), clock.now())
        return failure.code
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0 if verb is not None and verb.lasts else 130
    except BrokenPipeError:
        # Whoever read has seen enough; nothing more is flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


async def _run(verb: Verb, options: Options, own: Options, words: list[str], env: Mapping[str, str]) -> None:
    # Through the loop: a signal that comes just before the loop goes to sleep would otherwise wait with it.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    path = settings.file(options, env)
    if options.given("config") and verb.name != "config" and not path.exists():
        raise UsageError(f"load config file {path}: no such file")
    found = settings.with_flags(settings.read(path), options)
    runtime = Connection(settings.socket(found.runtime_endpoint))
    images = Connection(settings.socket(found.image_endpoint)) if found.image_endpoint else runtime
    module, _, name = verb.run.partition(":")
    run: Callable[[Session], Awaitable[None]] = getattr(importlib.import_module(f"k3s.cli.crictl.{module}"), name)
    session = Session(runtime, images, own, words, found, path, SystemClock())
    try:
        if verb.name != "config":
            await _validate(runtime, found.timeout or _TIMEOUT_S)
        await run(session)
        sys.stdout.flush()
    finally:
        runtime.close()
        images.close()


async def _validate(runtime: Connection, timeout_s: float) -> None:
    """Asks whether anyone is there who speaks the interface. Raises Failed that names the endpoint."""
    try:
        await runtime.call("Version", timeout_s, version="v1")
    except RuntimeFailure as failure:
        raise Failed(
            f"validate service connection: validate CRI v1 runtime API for endpoint "
            f'"unix://{runtime.socket}": {reason(failure)}'
        ) from None
