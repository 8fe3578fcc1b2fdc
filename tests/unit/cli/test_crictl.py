"""crictl's command line, settings and files."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path

import pytest

from k3s.cli.crictl import command, configs, images, logs, ports, session, settings, streams
from k3s.cli.crictl.flags import DURATION, LIST, NUMBER, SWITCH, Flag, UsageError, parse
from k3s.cli.crictl.session import Failed
from k3s.cli.crictl.verbs import GLOBAL, VERBS
from k3s.kubelet.runtime.interface import RuntimeFailure

_FLAGS = (
    Flag("all", "", "a", SWITCH),
    Flag("quiet", "", "q", SWITCH),
    Flag("output", "", "o", default="table"),
    Flag("label", "", "l", LIST),
    Flag("last", "", "n", NUMBER),
    Flag("wait", "", "pt", DURATION, env="WAIT"),
)


@pytest.mark.parametrize(
    ("line", "values", "rest"),
    [
        ("-aq x", {"all": "true", "quiet": "true"}, ["x"]),
        ("x --all=false -o json", {"all": "false", "output": "json"}, ["x"]),
        ("-ojson -n5", {"output": "json", "last": "5"}, []),
        ("-qo yaml -all", {"quiet": "true", "output": "yaml", "all": "true"}, []),
        ("-pt 5s -- -a", {"wait": "5s"}, ["-a"]),
        ("--output=a=b -", {"output": "a=b"}, ["-"]),
    ],
)
def test_flags(line: str, values: dict[str, str], rest: list[str]) -> None:
    """Letters together, values behind a space, `=` or at once, one dash or two, before words or behind."""
    options, words = parse(line.split(), _FLAGS, {})
    assert {name: found[-1] for name, found in options.values.items()} == values
    assert words == rest


def test_values_of_flags() -> None:
    """Defaults, lists, the environment, and the end of options at the first word where a command follows."""
    options, words = parse(["-l", "a=1", "--label=b=", "run", "-q"], _FLAGS, {"WAIT": "1m30s"}, mixed=False)
    assert words == ["run", "-q"]
    assert (options.text("output"), options.number("last"), options.on("quiet")) == ("table", 0, False)
    assert (options.pairs("label"), options.seconds("wait")) == ({"a": "1", "b": ""}, 90.0)
    assert parse(["-pt", "7"], _FLAGS, {"WAIT": "1m"})[0].seconds("wait") == 7.0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--none", "flag provided but not defined: -none"),
        ("-az", "flag provided but not defined: -az"),
        ("--output", "flag needs an argument: -o"),
        ("--last many", 'invalid value "many" for flag -last'),
        ("--all=maybe", 'invalid boolean value "maybe" for -all'),
        ("-pt soon", 'invalid value "soon" for flag -wait'),
    ],
)
def test_wrong_flags(line: str, told: str) -> None:
    """The flag is named."""
    with pytest.raises(UsageError) as error:
        parse(line.split(), _FLAGS, {})
    assert told in str(error.value)


def test_a_label_without_a_value() -> None:
    """It is named."""
    with pytest.raises(UsageError, match="incorrectly specified label: a"):
        parse(["-l", "a"], _FLAGS, {})[0].pairs("label")


def test_verbs_are_whole() -> None:
    """Upstream's verbs are there; each one's flags have names and letters of their own, and its function is there."""
    words = (
        "attach config create events exec imagefsinfo images info inspect inspecti inspectp logs pods port-forward ps "
        "pull rm rmi rmp run runp runtime-config start stats statsp stop stopp update update-runtime-config version"
    )
    assert set(words.split()) <= {verb.name for verb in VERBS}
    for verb in VERBS:
        names = [name for flag in verb.flags for name in (flag.name, flag.short) if name]
        assert len(names) == len(set(names)), verb.name
        module, _, function = verb.run.partition(":")
        assert callable(getattr(importlib.import_module(f"k3s.cli.crictl.{module}"), function))
    assert [verb.name for verb in VERBS] == sorted(verb.name for verb in VERBS)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("frobnicate", 'No help topic for "frobnicate"'),
        ("ps extra", "ps takes other words: crictl ps [command options]"),
        ("logs", "logs takes other words: crictl logs [command options] CONTAINER-ID"),
        ("exec", "CONTAINER-ID"),
        ("ps --none", "flag provided but not defined"),
        ("-r tcp://host:1 ps", "not supported"),
        ("--config /none ps", "load config file /none: no such file"),
    ],
)
def test_wrong_calls(capsys: pytest.CaptureFixture[str], line: str, told: str) -> None:
    """One line that a program can read, exit code 1."""
    assert command.main(line.split(), {"HOME": "/none"}) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err.replace('\\"', '"') and " level=fatal msg=" in err


def test_nobody_listens(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The endpoint is named."""
    assert command.main(["-r", f"unix://{tmp_path}/none.sock", "ps"], {}) == 1
    err = capsys.readouterr().err
    assert f'for endpoint \\"unix://{tmp_path}/none.sock\\": rpc error: code = Unavailable' in err


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """All verbs; or one with its flags."""
    assert command.main(words, {}) == 0
    out = capsys.readouterr().out
    assert all(f"   {verb.name}" in out for verb in VERBS) and all(f"--{flag.name}" in out for flag in GLOBAL)
    assert command.main(["ps", "--help"], {}) == 0
    shown = capsys.readouterr().out
    assert command.main(["help", "ps"], {}) == 0
    assert capsys.readouterr().out == shown
    assert "--no-trunc" in shown and "--output, -o TEXT" in shown and "(default: table)" in shown


def _global(*words: str, **env: str) -> tuple[settings.Options, dict[str, str]]:
    return parse(words, GLOBAL, env, mixed=False)[0], env


def test_where_settings_are(tmp_path: Path) -> None:
    """The one that is named, that of the data folder, that of the user, else the system's."""

    def file(*words: str, **env: str) -> Path:
        return settings.file(*_global(*words, HOME=str(tmp_path / "home"), **env))

    home = tmp_path / "home/.rancher/k3s/agent/etc/crictl.yaml"
    data = tmp_path / "data/agent/etc/crictl.yaml"
    assert file("-c", "/x") == Path("/x")
    assert file(CRI_CONFIG_FILE="/y") == Path("/y")
    assert file() in (settings.SYSTEM_FILE, Path("/var/lib/rancher/k3s/agent/etc/crictl.yaml"))
    for path in (home, data):
        path.parent.mkdir(parents=True)
        path.write_text("timeout: 5\n")
    assert file() == home
    assert file(K3S_DATA_DIR=str(tmp_path / "data")) == data


def test_settings_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are read, changed and listed by crictl itself; flags and environment go before them."""
    path = tmp_path / "crictl.yaml"

    def run(*words: str) -> str:
        code = command.main(["--config", str(path), "config", *words], {})
        out, err = capsys.readouterr()
        return str(out) if code == 0 else str(err)

    assert run("--set", "timeout=10,debug=true") == ""
    assert run("runtime-endpoint", "unix:///a.sock") == ""
    assert path.stat().st_mode & 0o777 == 0o600
    assert run("--get", "timeout") == "10\n" and run("--get", "debug") == "true\n"
    assert [line.split() for line in run("--list").splitlines()][:3] == [
        *(["KEY", "VALUE"], ["runtime-endpoint", "unix:///a.sock"], ["image-endpoint"])
    ]
    for words, told in (
        (["--set", "colour=red"], "no configuration option named colour"),
        (["--get", "colour"], "no configuration option named colour"),
        (["--set", "timeout=soon"], "parse timeout value"),
        (["--set", "debug"], "incorrectly specified option: debug"),
        ([], "name what to do"),
    ):
        assert told in run(*words)
    found = settings.read(path)
    assert settings.with_flags(found, _global("-r", "unix:///b.sock")[0]).runtime_endpoint == "unix:///b.sock"
    env = {"CONTAINER_RUNTIME_ENDPOINT": "unix:///c.sock", "IMAGE_SERVICE_ENDPOINT": "unix:///d.sock"}
    merged = settings.with_flags(found, _global("-t", "3s", **env)[0])
    assert (merged.runtime_endpoint, merged.image_endpoint, merged.timeout) == ("unix:///c.sock", "unix:///d.sock", 3)
    path.write_text("timeout: soon\n")
    with pytest.raises(UsageError, match="parse timeout value"):
        settings.read(path)
    path.write_text("new-key: 1\ndebug:\n")
    assert settings.read(path) == settings.Settings()
    path.write_text("[]")
    with pytest.raises(UsageError, match="no map of options"):
        settings.read(path)


def test_sockets() -> None:
    """An endpoint is a path, with or without its scheme."""
    assert settings.socket("unix:///a.sock") == settings.socket("/a.sock") == "/a.sock"


def test_files_of_pods_and_containers(tmp_path: Path) -> None:
    """Enums by name or number, unknown fields by their place; other systems' parts are left out; a uid is made."""
    path = tmp_path / "config"
    path.write_text(
        json.dumps(
            {
                "metadata": {"name": "p", "namespace": "n"},
                "windows": {"anything": 1},
                "port_mappings": [{"protocol": 1, "container_port": 53}],
                "linux": {"security_context": {"namespace_options": {"network": 2, "pid": "CONTAINER"}}},
            }
        )
    )
    made = configs.sandbox(str(path))
    assert made["linux"] == {"security_context": {"namespace_options": {"network": "NODE", "pid": "CONTAINER"}}}
    assert made["port_mappings"] == [{"protocol": "UDP", "container_port": 53}]
    assert len(made["metadata"]["uid"]) == 36 and "windows" not in made
    path.write_text("metadata: {name: c}\nimage: {image: busybox}\nenvs: [{key: A, value: b}]\ntty: null\n")
    made = configs.container(str(path))
    assert made["image"] == {"image": "busybox", "user_specified_image": "busybox"} and "tty" not in made
    assert configs.fitted("KeyValue", {"key": "A", "value": "b"}) == {"key": "A", "value": "b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("metadata: {name: c, colour: red}", "unknown field metadata.colour"),
        ("mounts: [{propagation: 9}]", r"mounts\[0\].propagation is none of PROPAGATION_PRIVATE, "),
        ("command: sh", "command is no list"),
        ("tty: 1", "tty is not of type bool"),
        ("labels: []", "labels is not of type map<string,string>"),
        ("metadata: {attempt: true}", "metadata.attempt is not of type uint32"),
        ("[]", "the document is no map"),
        ("{}", "metadata is not set"),
        ("metadata: {name: ''}\nimage: {image: x}", "name is not in metadata"),
        ("metadata: {name: c}", "image.image is not set"),
        ("a: b: c", "yaml: "),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, told: str) -> None:
    """The file and the field are named."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(Failed, match=told) as error:
        configs.container(str(path))
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there() -> None:
    """In upstream's words."""
    with pytest.raises(Failed, match="config at /none not found"):
        configs.sandbox("/none")


def test_credentials() -> None:
    """`username:password`, their base64, or a name and what was typed."""
    assert images.credentials("", "") is None
    assert images.credentials("me:p:w", "") == {"username": "me", "password": "p:w"}
    assert images.credentials("me", "") == {"username": "me", "password": ""}
    assert images.credentials("", "bWU6cA==") == {"auth": "bWU6cA=="}
    assert images.credentials("", "", "me", "typed") == {"username": "me", "password": "typed"}
    for creds, auth in ((":p", ""), ("me:p", "x")):
        with pytest.raises(Failed):
            images.credentials(creds, auth)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("", 0.0),
        ("1m", 940.0),
        ("1h30m", 1000.0 - 5400),
        ("1970-01-01T00:10:00Z", 600.0),
        ("1970-01-01T00:10:00", 600.0),
        ("1970-01-02", 86400.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("123.5", 123.5),
    ],
)
def test_since(text: str, moment: float) -> None:
    """A length of time, a time with or without zone, a day, seconds."""
    assert logs.since(text, 1000.0) == moment


def test_a_since_that_is_none() -> None:
    """It is named."""
    with pytest.raises(UsageError, match='"yesterday" of --since'):
        logs.since("yesterday", 0.0)


def test_the_log_before() -> None:
    """Beside the present one, by its number."""
    assert logs.previous(Path("/var/log/pods/a/web/3.log"), 3) == Path("/var/log/pods/a/web/2.log")


def test_ports() -> None:
    """One number for both sides, two, or any local one."""
    assert ports.pairs(["80", "8080:80", ":443"]) == [(80, 80), (8080, 80), (0, 443)]
    for word in ("x", "1:x", "80:", "70000", "1:2:3"):
        with pytest.raises(UsageError, match="invalid port format"):
            ports.pairs([word])


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (b"", 0, ""),
        (b'{"status":"Success"}', 0, ""),
        (
            b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}',
            7,
            "command terminated with exit code 7",
        ),
        (b'{"status":"Failure","message":"no such container"}', 1, "no such container"),
        (b"plain words", 1, "plain words"),
    ],
)
def test_how_a_command_ended(status: bytes, code: int, told: str) -> None:
    """By the status that closes its stream of errors."""
    assert streams.exit_code(status) == (code, told)


def test_failures_of_many() -> None:
    """One failure does not stop the others; all are told, the same ones once."""
    done = []

    async def work(item: int) -> None:
        if item == 1:
            raise Failed("one failed")
        if item in (2, 3):
            raise RuntimeFailure("NOT_FOUND", "it is gone")
        done.append(item)

    with pytest.raises(Failed) as error:
        asyncio.run(session.each([0, 1, 2, 3, 4], work))
    assert str(error.value) == "[one failed, rpc error: code = NotFound desc = it is gone]"
    assert done == [0, 4]
