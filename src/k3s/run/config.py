"""Command line + environment + config files + defaults -> settings (k3s docs: Configuration Options).

Precedence: command line, environment, file, default. A list on the command line replaces the list of the files; in the
files, `key+` appends to what earlier files said. A wrong value is a ConfigError that names flag, value and remedy.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k3s.run.hardening import FIXED
from k3s.run.options import Option, options_for

Value = str | bool | int | tuple[str, ...]


class ConfigError(Exception):
    """A setting that a person has to change; the only error that ends the process with exit code 2."""


class CannotStart(Exception):
    """The settings are right, but the machine is not ready for them (a port is taken, say): exit code 1."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The value of every option of a personality, and where each came from (flag, environment, file or default)."""

    values: Mapping[str, Value]
    sources: Mapping[str, str]
    args: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """A text option's value."""
        value = self.values[name]
        assert isinstance(value, str), name
        return value

    def switch(self, name: str) -> bool:
        """A switch's value."""
        return bool(self.values[name])

    def number(self, name: str) -> int:
        """A number's or port's value, 0 when it was not given."""
        return int(self.values[name] or 0)  # type: ignore[arg-type]

    def items(self, name: str) -> tuple[str, ...]:
        """A list's values."""
        value = self.values[name]
        assert isinstance(value, tuple), name
        return value

    def is_set(self, name: str) -> bool:
        """True when the option was given anywhere."""
        return self.sources.get(name, "default") != "default"


class HelpWanted(Exception):
    """--help was given."""


def resolve(personality: str, args: Sequence[str], env: Mapping[str, str]) -> Settings:
    """The settings of `server` or `agent`. Raises ConfigError, HelpWanted."""
    options = options_for(personality)
    by_flag = _flags(options)
    given = _command_line(personality, args, by_flag)
    from_env = {o.name: [env[o.env]] for o in options if o.env and env.get(o.env)}
    config_option = by_flag["config"]
    path = (given.get("config") or from_env.get("config") or [config_option.default])[-1]
    explicit = "config" in given or "config" in from_env
    from_file = _config_files(personality, Path(path), explicit, by_flag)
    values: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for option in options:
        layers = ((given, "flag"), (from_env, "environment"), (from_file, f"file {path}"))
        texts, source = next(
            ((layer[option.name], name) for layer, name in layers if option.name in layer), (None, "default")
        )
        if texts is not None and option.refused:
            raise ConfigError(f"{_said(option, source)}: {option.refused}. Remove it to go on.")
        values[option.name] = _value(option, texts, source)
        sources[option.name] = source
    return Settings(values, sources, tuple(args))


def _flags(options: Sequence[Option]) -> dict[str, Option]:
    table: dict[str, Option] = {}
    for option in options:
        for name in (option.name, option.short, *option.aliases):
            if name:
                table[name] = option
    return table


def _command_line(personality: str, args: Sequence[str], by_flag: Mapping[str, Option]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help", "help"):
            raise HelpWanted
        if not word.startswith("-") or word in ("-", "--"):
            raise ConfigError(
                f"Cannot use argument {word!r}: k3s {personality} takes only flags; see k3s {personality} --help"
            )
        name, equals, value = word.lstrip("-").partition("=")
        option = by_flag.get(name)
        if option is None:
            raise ConfigError(
                f"Unknown flag {word.partition('=')[0]}: see k3s {personality} --help for those that exist"
            )
        if not equals:
            if option.kind == "switch":
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise ConfigError(f"Flag --{option.name} needs a value: --{option.name}=VALUE")
        given.setdefault(option.name, []).append(value)
    return given


def _config_files(personality: str, path: Path, explicit: bool, by_flag: Mapping[str, Option]) -> dict[str, list[str]]:
    folder = path.with_name(path.name + ".d")
    extra = sorted(p for p in folder.glob("*") if p.suffix in (".yaml", ".yml")) if folder.is_dir() else []
    if not path.exists():
        if explicit:
            raise ConfigError(f"Cannot read config file {path}: it does not exist; correct --config or K3S_CONFIG_FILE")
        files = extra
    else:
        files = [path, *extra]
    merged: dict[str, list[str]] = {}
    for file in files:
        for key, texts in _config_file(file).items():
            appends = key.endswith("+")
            option = by_flag.get(key.removesuffix("+"))
            if option is None:
                if _known_elsewhere(key.removesuffix("+"), personality):
                    continue
                raise ConfigError(
                    f"Unknown key {key!r} in {file}: keys are the flags of k3s {personality} without dashes"
                )
            merged[option.name] = [*merged.get(option.name, []), *texts] if appends else texts
    return merged


def _known_elsewhere(key: str, personality: str) -> bool:
    other = "agent" if personality == "server" else "server"
    return key in _flags(options_for(other))


def _config_file(file: Path) -> dict[str, list[str]]:
    import yaml  # only hosts with a config file pay for it

    try:
        content = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read config file {file}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"Cannot read config file {file}: it is no YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"Cannot read config file {file}: it must hold keys and values, a key per flag")
    return {str(key): _texts(value) for key, value in content.items()}


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return [_text(value)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _said(option: Option, source: str) -> str:
    where = {"flag": "", "environment": f" (from {option.env})", "default": ""}.get(source, f" (from {source})")
    return f"Option --{option.name}{where} is refused"


def _value(option: Option, texts: list[str] | None, source: str) -> Value:
    if option.is_list:
        items = tuple(part for text in texts or () for part in _split(option, text))
        for item in items:
            _check(option, item, source)
        return items
    text = texts[-1] if texts else option.default
    if option.kind == "switch":
        return _switch(option, text, source)
    if text:
        _check(option, text, source)
    if option.kind in ("number", "port"):
        return int(text) if text else 0
    return text


def _split(option: Option, text: str) -> list[str]:
    # Values of --disable and --tls-san may come as one comma list; a pass-through flag's value may hold commas.
    return [t for t in text.split(",") if t] if option.name in ("disable", "tls-san") else [text]


def _switch(option: Option, text: str, source: str) -> bool:
    lowered = text.lower()
    if lowered in ("", "false", "0", "f", "no"):
        return False
    if lowered in ("true", "1", "t", "yes"):
        return True
    raise _wrong(option, text, source, "use true or false")


_REMEDIES = {
    "number": "use a whole number",
    "port": "use a port from 1 to 65535",
    "address": "use an IP address such as 192.0.2.10",
    "cidr": "use a network such as 10.42.0.0/16",
    "ports": "use a range such as 30000-32767",
    "mode": "use an octal file mode such as 0600",
}


def _check(option: Option, text: str, source: str) -> None:
    if option.choices and text not in option.choices:
        raise _wrong(option, text, source, f"use one of {', '.join(option.choices)}")
    if not _valid(option.kind, text):
        raise _wrong(option, text, source, _REMEDIES[option.kind])


def _valid(kind: str, text: str) -> bool:
    try:
        if kind == "number":
            int(text)
        elif kind == "port":
            return text.isdecimal() and 1 <= int(text) <= 65535
        elif kind == "address":
            ipaddress.ip_address(text)
        elif kind == "cidr":
            return "/" in text and bool(ipaddress.ip_network(text))
        elif kind == "ports":
            match = re.fullmatch(r"(\d+)-(\d+)", text)
            return match is not None and 1 <= int(match[1]) <= int(match[2]) <= 65535
        elif kind == "mode":
            return re.fullmatch(r"0?[0-7]{3}", text) is not None
    except ValueError:
        return False
    return True


def _wrong(option: Option, text: str, source: str, remedy: str) -> ConfigError:
    where = {"flag": "", "environment": f" from {option.env}"}.get(source, f" from {source}")
    return ConfigError(f"Wrong value {text!r} for --{option.name}{where}: {remedy}")


def component_args(
    settings: Settings, name: str, known: Mapping[str, str], repeated: Collection[str] = ()
) -> dict[str, str]:
    """The `name=value` pairs of a pass-through option; a bare name means true.

    `known` maps the names that are honoured to what they take; any other name is a ConfigError. Of a name that comes
    again the last value counts, but those in `repeated` have all values, joined by line feeds. Those that have one
    value only (`hardening.FIXED`) are checked and left out.
    """
    pairs: dict[str, str] = {}
    constant = FIXED.get(name, {})
    for item in settings.items(name):
        key, equals, value = item.removeprefix("--").partition("=")
        if key not in known:
            listed = ", ".join(sorted(known)) or "none yet"
            raise ConfigError(f"Option --{name}={item} is refused: {key} is not honoured; those that are: {listed}")
        text = value if equals else "true"
        if key in constant:
            fixed, why = constant[key]
            if text != fixed:
                raise ConfigError(f"Option --{name}={item} is refused: {key} is always {fixed} here, because {why}")
            continue
        pairs[key] = f"{pairs[key]}\n{text}" if key in repeated and key in pairs else text
    return pairs


def default_data_dir(env: Mapping[str, str], is_root: bool) -> Path:
    """Where state goes when --data-dir does not say (spec 1.3)."""
    if is_root:
        return Path("/var/lib/rancher/k3s")
    return Path(env.get("HOME") or os.path.expanduser("~")) / ".rancher" / "k3s"
