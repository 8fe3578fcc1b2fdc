"""Options from command line, environment and files, in that order of precedence."""

from __future__ import annotations

from pathlib import Path

import pytest

from k3s.run.config import ConfigError, HelpWanted, Settings, component_args, resolve
from k3s.run.options import OPTIONS, help_text, options_for


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def with_file(folder: Path, text: str, *args: str, env: dict[str, str] | None = None) -> Settings:
    return resolve("server", ["--config", str(write(folder, text)), *args], env or {})


def test_defaults(tmp_path: Path) -> None:
    """Without anything given, every option has its documented default."""
    settings = with_file(tmp_path, "")
    assert settings.number("https-listen-port") == 6443
    assert settings.text("cluster-cidr") == "10.42.0.0/16"
    assert settings.items("disable") == ()
    assert not settings.is_set("cluster-cidr")


def test_precedence(tmp_path: Path) -> None:
    """Command line beats environment beats file."""
    text = "token: from-file\nnode-name: from-file\ndata-dir: /from-file\n"
    env = {"K3S_TOKEN": "from-env", "K3S_NODE_NAME": "from-env"}
    settings = with_file(tmp_path, text, "--token=from-flag", env=env)
    assert [settings.text(n) for n in ("token", "node-name", "data-dir")] == ["from-flag", "from-env", "/from-file"]
    assert settings.sources["data-dir"].startswith("file ")


def test_a_list_on_the_command_line_replaces_the_files_list(tmp_path: Path) -> None:
    """The newer rule of k3s: lists are not appended across sources."""
    settings = with_file(tmp_path, "tls-san: [a, b]\n", "--tls-san=c", "--tls-san", "d,e")
    assert settings.items("tls-san") == ("c", "d", "e")


def test_drop_ins_are_read_in_order_and_plus_appends(tmp_path: Path) -> None:
    """config.yaml.d files come after the main file; `key+` appends, a plain key replaces."""
    write(tmp_path / "config.yaml.d", "tls-san+: c\nnode-label: [x=1]\n", "20.yaml")
    write(tmp_path / "config.yaml.d", "tls-san+: [b]\nnode-label: [y=2]\n", "10.yml")
    write(tmp_path / "config.yaml.d", "tls-san: [ignored]\n", "30.txt")
    settings = with_file(tmp_path, "tls-san: a\n")
    assert settings.items("tls-san") == ("a", "b", "c")
    assert settings.items("node-label") == ("x=1",)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--https-listen-port=abc"], ["--https-listen-port", "'abc'", "1 to 65535"]),
        (["--https-listen-port=70000"], ["70000"]),
        (["--cluster-cidr=10.42.0.1/16"], ["--cluster-cidr", "10.42.0.0/16"]),
        (["--node-ip=host"], ["--node-ip", "IP address"]),
        (["--disable=traefick"], ["--disable", "traefick", "traefik"]),
        (["--disable-agent=perhaps"], ["--disable-agent", "true or false"]),
        (["--write-kubeconfig-mode=rw"], ["octal"]),
        (["--service-node-port-range=40000-30000"], ["30000-32767"]),
        (["--no-such-flag"], ["--no-such-flag", "--help"]),
        (["extra"], ["'extra'"]),
        (["--token"], ["--token", "needs a value"]),
        (["--cluster-init"], ["--cluster-init", "not built yet"]),
        (["--rootless"], ["--disable-agent"]),
        (["--config=/no/such/file"], ["/no/such/file", "--config"]),
    ],
)
def test_wrong_values_name_flag_value_and_remedy(args: list[str], words: list[str], tmp_path: Path) -> None:
    """Every refusal says which flag, what was given and what to do."""
    if not args[0].startswith("--config"):
        args = ["--config", str(write(tmp_path, "")), *args]
    with pytest.raises(ConfigError) as refused:
        resolve("server", args, {})
    for word in words:
        assert word in str(refused.value)


def test_a_refused_option_in_a_file_names_the_file(tmp_path: Path) -> None:
    """What is not honoured yet is never swallowed, wherever it stands."""
    with pytest.raises(ConfigError, match=r"rootless.*config\.yaml"):
        with_file(tmp_path, "rootless: true\n")


def test_unknown_keys_and_broken_files(tmp_path: Path) -> None:
    """A key that no personality knows, and YAML that is none, are told with the file."""
    with pytest.raises(ConfigError, match=r"'no-such'.*config\.yaml"):
        with_file(tmp_path, "no-such: 1\n")
    with pytest.raises(ConfigError, match="no YAML"):
        with_file(tmp_path, "a: [1\n")
    with pytest.raises(ConfigError, match="keys and values"):
        with_file(tmp_path, "- a\n")


def test_a_servers_file_may_serve_an_agent(tmp_path: Path) -> None:
    """Keys of the other personality are skipped, so that one file fits both."""
    path = write(tmp_path, "cluster-cidr: 10.1.0.0/16\nnode-name: n1\n")
    assert resolve("agent", ["-c", str(path)], {}).text("node-name") == "n1"


def test_aliases_and_short_forms(tmp_path: Path) -> None:
    """Deprecated names and one-letter flags lead to the same option."""
    settings = with_file(tmp_path, "", "--no-deploy=traefik", "-d", "/x", "--debug")
    assert settings.items("disable") == ("traefik",)
    assert settings.text("data-dir") == "/x"
    assert settings.switch("debug")


def test_component_arguments(tmp_path: Path) -> None:
    """Pass-through flags take name=value; an unknown name is refused and the known ones listed."""
    settings = with_file(tmp_path, "", "--kube-apiserver-arg=anonymous-auth", "--kube-apiserver-arg=token-auth-file=/t")
    known = {"anonymous-auth": "", "token-auth-file": ""}
    assert component_args(settings, "kube-apiserver-arg", known) == {"anonymous-auth": "true", "token-auth-file": "/t"}
    with pytest.raises(ConfigError, match=r"token-auth-file is not honoured.*anonymous-auth"):
        component_args(settings, "kube-apiserver-arg", {"anonymous-auth": ""})


def test_help_is_made_from_the_table(tmp_path: Path) -> None:
    """Every option that can be used is in --help, with its environment name; refused ones are not."""
    text = help_text("server")
    for option in options_for("server"):
        shown = not option.hidden and not option.refused
        assert (f"--{option.name} " in text or f"--{option.name}," in text or f"-{option.name} " in text) == shown, (
            option
        )
    with pytest.raises(HelpWanted):
        with_file(tmp_path, "", "--help")


def test_names_are_unique() -> None:
    """No flag, alias or environment name leads to two options."""
    names = [n for o in OPTIONS for n in (o.name, *o.aliases, o.short) if n]
    assert len(names) == len(set(names))
    envs = [o.env for o in OPTIONS if o.env]
    assert len(envs) == len(set(envs))
