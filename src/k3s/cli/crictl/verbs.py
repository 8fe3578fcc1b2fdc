"""crictl's verbs and their flags, a row each, by upstream's names."""

from __future__ import annotations

from dataclasses import dataclass

from k3s.cli.crictl.flags import DURATION, LIST, NUMBER, SWITCH, Flag


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: `run` is `module:function`, `words` how many words it takes (at least, at most; -1: any number).

    `mixed`: flags may stand behind words. `lasts`: it is ended by a person.
    """

    name: str
    help: str
    run: str
    args: str = ""
    flags: tuple[Flag, ...] = ()
    words: tuple[int, int] = (0, 0)
    aliases: tuple[str, ...] = ()
    mixed: bool = True
    lasts: bool = False


HELP = Flag("help", "Show help", "h", SWITCH)
GLOBAL = (
    Flag("config", "Location of the client config file", "c", env="CRI_CONFIG_FILE"),
    Flag("runtime-endpoint", "Endpoint of the CRI container runtime service", "r", env="CONTAINER_RUNTIME_ENDPOINT"),
    Flag(
        "image-endpoint",
        "Endpoint of the CRI image manager service (default: the runtime endpoint)",
        "i",
        env="IMAGE_SERVICE_ENDPOINT",
    ),
    Flag("timeout", "Timeout of connecting to the server, such as 2s (default: 2s)", "t", DURATION),
    Flag("debug", "Enable debug mode", "D", SWITCH),
    Flag("version", "Print the version", "v", SWITCH),
    HELP,
)


def _output(formats: str, default: str = "") -> Flag:
    return Flag("output", f"Output format, One of: {formats}", "o", default=default)


_LIST_OUTPUT = _output("json|yaml|table", "table")
_TEMPLATE = Flag("template", "The template of the output format go-template, a Go template")
_INSPECT_OUTPUT = (
    _output("json|yaml|go-template|table"),
    _TEMPLATE,
    Flag("quiet", "Do not show verbose information", "q", SWITCH),
)
_LABEL = Flag("label", "Filter by key=value label", kind=LIST)
_ALL = Flag("all", "Show all containers", "a", SWITCH)
_NO_TRUNC = Flag("no-trunc", "Show output without truncating the ID", kind=SWITCH)
_VERBOSE = Flag("verbose", "Show verbose information", "v", SWITCH)


def _selection(what: str, state_short: str = "s") -> tuple[Flag, ...]:
    return (
        Flag("name", f"Filter by {what} name regular expression pattern"),
        Flag("namespace", "Filter by pod namespace regular expression pattern"),
        Flag("state", f"Filter by {what} state", state_short),
        _LABEL,
        Flag("latest", f"Show the most recently created {what}", "l", SWITCH),
        Flag("last", f"Show last n recently created {what}s. Set 0 for unlimited", "n", NUMBER),
    )


def _containers(state_short: str = "s") -> tuple[Flag, ...]:
    pod, image = Flag("pod", "Filter by pod id", "p"), Flag("image", "Filter by container image")
    return (*_selection("container", state_short), pod, image)


_FILTER = Flag("filter", "Filter by dangling=true|false, reference=REGEX, before=IMAGE, since=IMAGE", "f", LIST)
_PULL_TIMEOUT = Flag("pull-timeout", "Maximum time for pulling the image", "pt", DURATION, env="CRICTL_PULL_TIMEOUT")
_CREDENTIALS = (
    Flag("creds", "Use USERNAME[:PASSWORD] for accessing the registry", env="CRICTL_CREDS"),
    Flag("auth", "Use a base64 encoded USERNAME[:PASSWORD] for accessing the registry", env="CRICTL_AUTH"),
    Flag("username", "Use USERNAME for accessing the registry; the password is asked for", "u"),
)
_MAKING = (
    Flag("no-pull", "Do not pull the image", kind=SWITCH),
    Flag("with-pull", "Pull the image", kind=SWITCH),
    *_CREDENTIALS,
    Flag("cancel-timeout", "Time to wait for the request before cancelling it", "T", DURATION),
    _PULL_TIMEOUT,
)
_HANDLER = Flag("runtime", "Runtime handler to use", "r")
_TRANSPORT = Flag("transport", "Transport protocol to use: spdy", "r", default="spdy")
_SAMPLE = (
    _LABEL,
    _output("json|yaml|table"),
    Flag("seconds", "Sample duration for CPU usage in seconds", "s", NUMBER, "1"),
    Flag("watch", "Watch resources", "w", SWITCH),
)
_FORCE = Flag("force", "Force removal, disregarding if running", "f", SWITCH)
_CONTAINER_IDS, _POD_IDS = "CONTAINER-ID [CONTAINER-ID...]", "POD-ID [POD-ID...]"
_ANY, _SOME = (0, -1), (1, -1)

VERBS = (
    Verb(
        "attach",
        "Attach to a running container",
        "streams:attach",
        "CONTAINER-ID",
        (
            Flag("tty", "Allocate a pseudo-TTY", "t", SWITCH),
            Flag("stdin", "Keep STDIN open", "i", SWITCH),
            _TRANSPORT,
        ),
        (1, 1),
    ),
    Verb(
        "checkpoint",
        "Checkpoint one or more running containers",
        "lifecycle:checkpoint",
        _CONTAINER_IDS,
        (Flag("export", "The archive to write: /path/to/checkpoint.tar", "e"),),
        _SOME,
    ),
    Verb(
        "config",
        "Get, set and list crictl configuration options",
        "node:config",
        "[KEY VALUE]",
        (
            Flag("get", "Show the option value"),
            Flag("set", "Set options: opt1=val1,opt2=val2", kind=LIST),
            Flag("list", "Show all option values", kind=SWITCH),
        ),
        (0, 2),
    ),
    Verb(
        "create",
        "Create a new container",
        "lifecycle:create",
        "POD container-config.[json|yaml] pod-config.[json|yaml]",
        _MAKING,
        (3, 3),
    ),
    Verb(
        "events",
        "Stream the events of containers",
        "node:events",
        flags=(_output("json|yaml|go-template", "json"), _TEMPLATE),
        aliases=("event",),
        lasts=True,
    ),
    Verb(
        "exec",
        "Run a command in a running container",
        "streams:exec_",
        "[CONTAINER-ID] COMMAND [ARG...]",
        (
            Flag("sync", "Run the command synchronously", "s", SWITCH),
            Flag("timeout", "Timeout in seconds", kind=NUMBER),
            Flag("tty", "Allocate a pseudo-TTY", "t", SWITCH),
            Flag("interactive", "Keep STDIN open", "i", SWITCH),
            _TRANSPORT,
            *_containers(""),
            Flag("quiet", "Do not print the container ID if several containers are selected", "q", SWITCH),
            Flag("ignore-errors", "Ignore errors during command execution", "e", SWITCH),
            Flag("parallel", "Run the command in parallel if several containers are selected", "x", SWITCH),
        ),
        _SOME,
        mixed=False,
    ),
    Verb(
        "imagefsinfo",
        "Return image filesystem info",
        "images:imagefsinfo",
        flags=(_output("json|yaml|go-template|table"), _TEMPLATE),
    ),
    Verb(
        "images",
        "List images",
        "images:images",
        "[REPOSITORY[:TAG]]",
        (
            _VERBOSE,
            Flag("quiet", "Only show image IDs", "q", SWITCH),
            _FILTER,
            _LIST_OUTPUT,
            Flag("digests", "Show digests", kind=SWITCH),
            _NO_TRUNC,
            Flag("pinned", "Show whether the image is pinned or not", kind=SWITCH),
        ),
        (0, 1),
        ("image", "img"),
    ),
    Verb(
        "info",
        "Display information of the container runtime",
        "node:info",
        flags=(_output("json|yaml|go-template", "json"), *_INSPECT_OUTPUT[1:]),
    ),
    Verb(
        "inspect",
        "Display the status of one or more containers",
        "containers:inspect",
        _CONTAINER_IDS,
        (*_INSPECT_OUTPUT, *_containers(), _ALL),
        _ANY,
    ),
    Verb(
        "inspecti",
        "Return the status of one or more images",
        "images:inspecti",
        "IMAGE-ID [IMAGE-ID...]",
        (*_INSPECT_OUTPUT, Flag("name", "Filter by image name"), _FILTER),
        _ANY,
    ),
    Verb(
        "inspectp",
        "Display the status of one or more pods",
        "pods:inspectp",
        _POD_IDS,
        (*_INSPECT_OUTPUT, *_selection("pod")),
        _ANY,
    ),
    Verb(
        "logs",
        "Fetch the logs of a container",
        "logs:logs",
        "CONTAINER-ID",
        (
            Flag("follow", "Follow log output", "f", SWITCH),
            Flag("previous", "Print the logs of the previous instance of the container", "p", SWITCH),
            Flag("reopen", "Reopen the container logs for the provided container", "r", SWITCH),
            Flag("tail", "Number of lines to show from the end of the logs", kind=NUMBER, default="-1"),
            Flag("limit-bytes", "Maximum bytes of logs to return", kind=NUMBER, default="-1"),
            Flag("since", "Show logs since timestamp (2013-01-02T13:23:37) or relative (42m)"),
            Flag("timestamps", "Show timestamps", "t", SWITCH),
            Flag("stream", "Show one stream only: stdout or stderr", "s"),
        ),
        (1, 1),
        lasts=True,
    ),
    Verb(
        "pods",
        "List pods",
        "pods:pods",
        flags=(
            Flag("id", "Filter by pod id"),
            *_selection("pod"),
            _VERBOSE,
            Flag("quiet", "List only pod IDs", "q", SWITCH),
            _LIST_OUTPUT,
            _NO_TRUNC,
        ),
    ),
    Verb(
        "port-forward",
        "Forward local port to a pod",
        "ports:port_forward",
        "POD-ID [LOCAL_PORT:]REMOTE_PORT...",
        (_TRANSPORT,),
        (2, -1),
        lasts=True,
    ),
    Verb(
        "ps",
        "List containers",
        "containers:ps",
        flags=(
            Flag("id", "Filter by container id"),
            *_containers(),
            _ALL,
            _VERBOSE,
            Flag("quiet", "Only display container IDs", "q", SWITCH),
            _LIST_OUTPUT,
            _NO_TRUNC,
            Flag("resolve-image-path", "Show image path instead of image id", "r", SWITCH),
        ),
    ),
    Verb(
        "pull",
        "Pull an image from a registry",
        "images:pull",
        "NAME[:TAG|@DIGEST]",
        (
            *_CREDENTIALS,
            Flag("pod-config", "Use pod-config.[json|yaml] to pull for a pod"),
            Flag("annotation", "Annotation to be set on the pulled image", "a", LIST),
            _PULL_TIMEOUT,
        ),
        (1, 1),
    ),
    Verb(
        "rm",
        "Remove one or more containers",
        "lifecycle:rm",
        _CONTAINER_IDS,
        (
            _FORCE,
            Flag("keep-logs", "Preserve the container log file and its rotations", "k", SWITCH),
            Flag("all", "Remove all containers", "a", SWITCH),
        ),
        _ANY,
    ),
    Verb(
        "rmi",
        "Remove one or more images",
        "images:rmi",
        "IMAGE-ID [IMAGE-ID...]",
        (
            Flag("all", "Remove all images", "a", SWITCH),
            Flag("prune", "Remove all unused images", "q", SWITCH),
        ),
        _ANY,
    ),
    Verb(
        "rmp",
        "Remove one or more pods",
        "lifecycle:rmp",
        _POD_IDS,
        (_FORCE, Flag("all", "Remove all pods", "a", SWITCH)),
        _ANY,
    ),
    Verb(
        "run",
        "Run a new container inside a sandbox",
        "lifecycle:run",
        "container-config.[json|yaml] pod-config.[json|yaml]",
        (*_MAKING, _HANDLER),
        (2, 2),
    ),
    Verb(
        "runp",
        "Run a new pod",
        "lifecycle:runp",
        "pod-config.[json|yaml]",
        (_HANDLER, Flag("cancel-timeout", "Time to wait for the request before cancelling it", "T", DURATION)),
        (1, 1),
    ),
    Verb("runtime-config", "Retrieve the container runtime configuration", "node:runtime_config"),
    Verb("start", "Start one or more created containers", "lifecycle:start", _CONTAINER_IDS, words=_SOME),
    Verb(
        "stats",
        "List container(s) resource usage statistics",
        "stats:stats",
        "[ID]",
        (
            Flag("all", "Show all containers (default shows just running)", "a", SWITCH),
            Flag("id", "Filter by container id"),
            Flag("pod", "Filter by pod id", "p"),
            *_SAMPLE,
        ),
        (0, 1),
        lasts=True,
    ),
    Verb(
        "statsp",
        "List pod statistics",
        "stats:statsp",
        "[ID]",
        (Flag("id", "Filter by pod id"), *_SAMPLE),
        (0, 1),
        lasts=True,
    ),
    Verb(
        "stop",
        "Stop one or more running containers",
        "lifecycle:stop",
        _CONTAINER_IDS,
        (
            Flag("timeout", "Seconds to wait to kill the container after a graceful stop is requested", "t", NUMBER),
            Flag("all", "Stop all running containers", "a", SWITCH),
        ),
        _ANY,
    ),
    Verb("stopp", "Stop one or more running pods", "lifecycle:stopp", _POD_IDS, words=_SOME),
    Verb(
        "update",
        "Update one or more running containers",
        "lifecycle:update",
        _CONTAINER_IDS,
        (
            Flag("cpu-period", "CPU CFS period to be used for hardcapping (in usecs)", kind=NUMBER),
            Flag("cpu-quota", "CPU CFS hardcap limit (in usecs)", kind=NUMBER),
            Flag("cpu-share", "CPU shares (relative weight vs. other containers)", kind=NUMBER),
            Flag("memory", "Memory limit (in bytes)", kind=NUMBER),
            Flag("cpuset-cpus", "CPU(s) to use"),
            Flag("cpuset-mems", "Memory node(s) to use"),
            Flag("oom-score-adj", "OOM Killer score to use", kind=NUMBER),
        ),
        _SOME,
    ),
    Verb(
        "update-runtime-config",
        "Update the runtime configuration",
        "node:update_runtime_config",
        flags=(Flag("pod-cidr", "The new range of the pods' addresses", "p"),),
    ),
    Verb("version", "Display runtime version information", "node:version"),
)
