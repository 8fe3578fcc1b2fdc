"""The forms of names: each function returns what is wrong with a text, an empty list when nothing is.

The sentences are the API's own, because clients and their tests read them. Source: the validation library of the API.
"""

from __future__ import annotations

import re

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_UNDERSCORED = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_UNDERSCORED_SUBDOMAIN = _UNDERSCORED + r"(\." + _UNDERSCORED + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = "(" + _QUALIFIED + ")?"
_WILDCARD = r"\*\." + _SUBDOMAIN
_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_ENV_NAME = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HTTP_HEADER = "[-A-Za-z0-9]+"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_PERCENT = "[0-9]+%"

_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character"
)
_QUALIFIED_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_WILDCARD_TEXT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
)
_IDENTIFIER_TEXT = (
    "a valid C identifier must start with alphabetic character or '_', "
    "followed by a string of alphanumeric characters or '_'"
)
_ENV_NAME_TEXT = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', "
    "and must not start with a digit"
)
_RELAXED_ENV_NAME_TEXT = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)
_CONFIG_KEY_TEXT = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
_HTTP_HEADER_TEXT = "a valid HTTP header must consist of alphanumeric characters or '-'"
_PERCENT_TEXT = "a valid percent string must be a numeric string followed by an ending '%'"

EMPTY = "must be non-empty"
BAD_PORT = "must be between 1 and 65535, inclusive"

_label_ok = re.compile(_LABEL + r"\Z").match
_underscored_ok = re.compile(_UNDERSCORED_SUBDOMAIN + r"\Z").match
_subdomain_ok = re.compile(_SUBDOMAIN + r"\Z").match
_label_1035_ok = re.compile(_LABEL_1035 + r"\Z").match
_qualified_ok = re.compile(_QUALIFIED + r"\Z").match
_label_value_ok = re.compile(_LABEL_VALUE + r"\Z").match
_wildcard_ok = re.compile(_WILDCARD + r"\Z").match
_identifier_ok = re.compile(_IDENTIFIER + r"\Z").match
_env_name_ok = re.compile(_ENV_NAME + r"\Z").match
_config_key_ok = re.compile(_CONFIG_KEY + r"\Z").match
_http_header_ok = re.compile(_HTTP_HEADER + r"\Z").match
_http_path_ok = re.compile(_HTTP_PATH + r"\Z").match
_percent_ok = re.compile(_PERCENT + r"\Z").match
_port_chars_ok = re.compile(r"[-a-z0-9]+\Z").match
_has_letter = re.compile("[a-z]").search


def too_long(limit: int, unit: str = "characters") -> str:
    """The sentence for a text of more than `limit` bytes. Keys and values of labels say so, names say characters."""
    return f"must be no more than {limit} {unit}"


def _pattern_problem(text: str, pattern: str, *examples: str) -> str:
    if not examples:
        return f"{text} (regex used for validation is '{pattern}')"
    shown = "".join(f"'{example}', " if i == 0 else f" or '{example}', " for i, example in enumerate(examples))
    return f"{text} (e.g. {shown}regex used for validation is '{pattern}')"


def _longer(text: str, limit: int) -> bool:
    return len(text) > limit or (not text.isascii() and len(text.encode("utf-8", "surrogatepass")) > limit)


def dns_label(text: str) -> list[str]:
    """An RFC 1123 label: lower case letters, digits and dashes, at most 63."""
    problems = [too_long(63)] if _longer(text, 63) else []
    if not _label_ok(text):
        problems.append(_pattern_problem(_LABEL_TEXT, _LABEL, "my-name", "123-abc"))
    return problems


def dns_subdomain(text: str) -> list[str]:
    """An RFC 1123 subdomain: labels joined by dots, at most 253 characters."""
    problems = [too_long(253)] if _longer(text, 253) else []
    if not _subdomain_ok(text):
        problems.append(_pattern_problem(_SUBDOMAIN_TEXT, _SUBDOMAIN, "example.com"))
    return problems


def dns_subdomain_with_underscores(text: str) -> list[str]:
    """An RFC 1123 subdomain that may have underscores: where names are searched."""
    problems = [too_long(253)] if _longer(text, 253) else []
    if not _underscored_ok(text):
        said = _SUBDOMAIN_TEXT.replace("characters, '-'", "characters, '_', '-'")
        problems.append(_pattern_problem(said, _UNDERSCORED_SUBDOMAIN, "example.com"))
    return problems


def dns1035_label(text: str) -> list[str]:
    """An RFC 1035 label: like an RFC 1123 label, but it starts with a letter."""
    problems = [too_long(63)] if _longer(text, 63) else []
    if not _label_1035_ok(text):
        problems.append(_pattern_problem(_LABEL_1035_TEXT, _LABEL_1035, "my-name", "abc-123"))
    return problems


def wildcard_subdomain(text: str) -> list[str]:
    """`*.` and an RFC 1123 subdomain."""
    problems = [too_long(253)] if _longer(text, 253) else []
    if not _wildcard_ok(text):
        problems.append(_pattern_problem(_WILDCARD_TEXT, _WILDCARD, "*.example.com"))
    return problems


def qualified_name(text: str) -> list[str]:
    """A name part, with an optional DNS prefix and a slash before it: the form of label and annotation keys."""
    parts = text.split("/")
    problems: list[str] = []
    if len(parts) == 2:
        if not parts[0]:
            problems.append("prefix part " + EMPTY)
        else:
            problems += ["prefix part " + problem for problem in dns_subdomain(parts[0])]
    elif len(parts) > 2:
        text_ = _pattern_problem(_QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc")
        return [f"a qualified name {text_} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    last = parts[-1]
    if not last:
        problems.append("name part " + EMPTY)
    elif _longer(last, 63):
        problems.append("name part " + too_long(63, "bytes"))
    if not _qualified_ok(last):
        problems.append("name part " + _pattern_problem(_QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return problems


label_key = qualified_name


def label_value(text: str) -> list[str]:
    """The value of a label: empty, or like the name part of a key."""
    problems = [too_long(63, "bytes")] if _longer(text, 63) else []
    if not _label_value_ok(text):
        problems.append(_pattern_problem(_LABEL_VALUE_TEXT, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return problems


def c_identifier(text: str) -> list[str]:
    """An identifier of the C language."""
    if _identifier_ok(text):
        return []
    return [_pattern_problem(_IDENTIFIER_TEXT, _IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def env_var_name(text: str, *, relaxed: bool = True) -> list[str]:
    """The name of an environment variable; relaxed (the default since 1.34) allows any printable ASCII but `=`."""
    if relaxed:
        if not text:
            return ["environment variable name " + EMPTY]
        return [] if all(" " <= c <= "~" and c != "=" for c in text) else [_RELAXED_ENV_NAME_TEXT]
    problems = []
    if not _env_name_ok(text):
        problems.append(_pattern_problem(_ENV_NAME_TEXT, _ENV_NAME, "my.env-name", "MY_ENV.NAME", "MyEnvName1"))
    return problems + _not_dotted(text)


def _not_dotted(text: str) -> list[str]:
    if text == ".":
        return ["must not be '.'"]
    if text == "..":
        return ["must not be '..'"]
    return ["must not start with '..'"] if text.startswith("..") else []


def config_map_key(text: str) -> list[str]:
    """A key of a ConfigMap or Secret: a file name without surprises, at most 253 characters."""
    problems = [too_long(253)] if _longer(text, 253) else []
    if not _config_key_ok(text):
        problems.append(_pattern_problem(_CONFIG_KEY_TEXT, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    return problems + _not_dotted(text)


def port_name(text: str) -> list[str]:
    """The name of a port (IANA service name): at most 15 of lower case letters, digits and single inner dashes."""
    problems = ["must be no more than 15 characters"] if len(text) > 15 else []
    if not _port_chars_ok(text):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _has_letter(text):
        problems.append("must contain at least one letter (a-z)")
    if "--" in text:
        problems.append("must not contain consecutive hyphens")
    if text and (text[0] == "-" or text[-1] == "-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def port_number(number: int) -> list[str]:
    """A port from 1 to 65535."""
    return [] if 1 <= number <= 65535 else [BAD_PORT]


def path_segment(text: str) -> list[str]:
    """A name that fits in a URL path: the form of RBAC names."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{part}'" for part in ("/", "%") if part in text]


def http_header_name(text: str) -> list[str]:
    """The name of an HTTP header."""
    return [] if _http_header_ok(text) else [_pattern_problem(_HTTP_HEADER_TEXT, _HTTP_HEADER, "X-Header-Name")]


def percent(text: str) -> list[str]:
    """A number and a percent sign."""
    return [] if _percent_ok(text) else [_pattern_problem(_PERCENT_TEXT, _PERCENT, "1%", "93%")]


def domain_prefixed_path(text: str) -> list[str]:
    """A DNS subdomain, a slash and a path, such as `acme.io/foo`."""
    if not text:
        return [EMPTY]
    host, slash, path = text.partition("/")
    if not (host and slash and path):
        return ['must be a domain-prefixed path (such as "acme.io/foo")']
    problems = dns_subdomain(host)
    if not _http_path_ok(path):
        problems.append(_pattern_problem("Invalid path", _HTTP_PATH))
    return problems


def generate_name_base(text: str) -> str:
    """What of generateName is checked: a trailing dash is no mistake, since a suffix follows."""
    return text[:-2] + "a" if len(text) > 1 and text.endswith("-") else text
