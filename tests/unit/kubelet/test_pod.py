"""The life of a pod, told as a play: an event goes in, the commands that come out are compared."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kubelet.pods import deleting, exited, pod, running, sandbox, spec

from k3s.api.object import Object
from k3s.kubelet import containers, signals
from k3s.kubelet.pod import next_wake, step
from k3s.kubelet.pod_events import MINIMUM_GRACE_S
from k3s.kubelet.pod_state import Phase, adopt, begin
from k3s.kubelet.signals import (
    Abort,
    Aborted,
    DeleteObject,
    Evict,
    HookFailed,
    Observed,
    PodChanged,
    PodGone,
    PrepareVolumes,
    Probed,
    Published,
    Release,
    Released,
    RemoveAll,
    Removed,
    Retry,
    SandboxDied,
    SandboxStarted,
    SandboxStopped,
    SetupFailed,
    StartContainer,
    Started,
    StartFailed,
    StartSandbox,
    StopContainer,
    StopSandbox,
    Tell,
    Tick,
    VolumesReady,
)


class Play:
    """One pod on a stage; `now` is moved by hand."""

    def __init__(self, obj: Object) -> None:
        self.now = 0.0
        self.state = begin(obj, self.now)

    def on(self, event: signals.Event) -> list[signals.Command]:
        """The commands that an event brings, without what is told to people."""
        self.state, commands = step(self.state, event, self.now)
        self.told = [c for c in commands if isinstance(c, Tell)]
        return [c for c in commands if not isinstance(c, Tell)]

    def until_running(self) -> Play:
        """Plays the usual opening of a pod with one container."""
        assert self.on(Tick()) == [PrepareVolumes()]
        assert self.on(VolumesReady()) == [StartSandbox(0)]
        assert self.on(SandboxStarted(sandbox())) == [StartContainer("main", "main", 0)]
        assert self.on(Started("main", running())) == []
        return self


def test_the_opening():
    """Volumes, sandbox, container, each once; the pod is ready when the container runs."""
    play = Play(pod()).until_running()
    assert play.on(Tick()) == []
    assert play.state.runs["main"].ready and play.state.runs["main"].started
    assert next_wake(play.state, play.now) is None


def test_setup_is_tried_again_with_growing_pauses():
    """A failed sandbox is tried again after 1, 2, 4 … s, not before."""
    play = Play(pod())
    play.on(Tick())
    play.on(VolumesReady())
    for pause in (1, 2, 4):
        assert play.on(SetupFailed()) == []
        assert next_wake(play.state, play.now) == play.now + pause
        play.now += pause
        assert play.on(Tick()) == [StartSandbox(0)]


def test_containers_start_one_after_the_other():
    """The second is started when the first runs."""
    play = Play(pod(spec("a"), spec("b")))
    play.on(Tick())
    play.on(VolumesReady())
    assert play.on(SandboxStarted(sandbox())) == [StartContainer("a", "main", 0)]
    assert play.on(Started("a", running("a"))) == [StartContainer("b", "main", 0)]


def test_back_off_grows_and_is_forgotten():
    """At once, 10, 20, 40 … 300 s; after more than 10 minutes of good work the count begins anew."""
    play = Play(pod()).until_running()
    attempt, pauses = 0, []
    for _ in range(8):
        play.now += 1
        commands = play.on(Observed(exited(code=1, attempt=attempt, at=play.now)))
        if not commands:
            wake = next_wake(play.state, play.now)
            assert wake is not None and play.state.runs["main"].waiting[0] == "CrashLoopBackOff"
            pauses.append(wake - play.now)
            play.now = wake
            commands = play.on(Tick())
        attempt += 1
        assert commands == [StartContainer("main", "main", attempt)]
        play.on(Started("main", running(attempt=attempt, at=play.now)))
    assert pauses == [10, 20, 40, 80, 160, 300, 300]
    play.now += 601
    assert play.on(Observed(exited(code=1, attempt=attempt, at=play.now))) == [
        StartContainer("main", "main", attempt + 1)
    ]


def test_a_container_that_ends_before_its_start_is_told():
    """The order of the two reports does not matter."""
    play = Play(pod())
    play.on(Tick())
    play.on(VolumesReady())
    play.on(SandboxStarted(sandbox()))
    assert play.on(Observed(exited(code=1))) == []
    assert play.on(Started("main", running())) == [StartContainer("main", "main", 1)]


def test_a_liveness_probe_restarts_once():
    """A failed liveness probe ends the container with its grace; further failures change nothing."""
    play = Play(pod(spec(livenessProbe={"exec": {}}), terminationGracePeriodSeconds=7)).until_running()
    failed = Probed("main", "liveness", False, "no")
    commands = play.on(failed)
    assert commands == [StopContainer("main", "main-0", 7.0, "Container main failed liveness probe, will be restarted")]
    assert play.on(failed) == []
    assert play.on(Observed(exited(code=137))) == [StartContainer("main", "main", 1)]


def test_readiness_and_startup():
    """Without the startup probe's word the container is neither started nor ready."""
    play = Play(pod(spec(startupProbe={"exec": {}}, readinessProbe={"exec": {}}))).until_running()
    assert not play.state.runs["main"].started
    play.on(Probed("main", "startup", True))
    assert play.state.runs["main"].started and not play.state.runs["main"].ready
    play.on(Probed("main", "readiness", True))
    assert play.state.runs["main"].ready


def test_a_failed_post_start_hook_ends_the_container():
    """The container is stopped, and started again by its policy."""
    play = Play(pod()).until_running()
    assert [type(c) for c in play.on(HookFailed("main", "bad"))] == [StopContainer]


def test_a_changed_image_restarts_the_container():
    """A new image in the spec ends the old container."""
    play = Play(pod()).until_running()
    commands = play.on(PodChanged(pod(spec(image="busybox:2"))))
    assert [type(c) for c in commands] == [StopContainer] and "definition changed" in commands[0].message


def test_deletion():
    """Abort, stop with the grace, release, then the object is deleted after its last status; then everything goes."""
    play = Play(pod()).until_running()
    assert play.on(PodChanged(deleting(play.state.pod, 5))) == [Abort()]
    assert play.on(Aborted(sandbox())) == [StopContainer("main", "main-0", 5.0, "")]
    assert play.on(Tick()) == []
    assert not play.state.terminal
    assert play.on(Observed(exited(code=143))) == [Release()]
    assert play.state.terminal
    assert play.on(Released()) == []
    assert play.on(Published()) == [DeleteObject()]
    assert play.on(Tick()) == []
    assert play.on(PodGone()) == [RemoveAll()]
    play.on(Removed())
    assert play.state.removed


def test_a_shorter_grace_shortens_the_stop():
    """A second DELETE with less grace stops again with less time; never below the minimum."""
    play = Play(pod()).until_running()
    play.on(PodChanged(deleting(play.state.pod, 60)))
    play.on(Aborted(sandbox()))
    assert play.on(PodChanged(deleting(play.state.pod, 60))) == []
    commands = play.on(PodChanged(deleting(play.state.pod, 0)))
    assert commands == [StopContainer("main", "main-0", MINIMUM_GRACE_S, "")]


def test_sidecars_end_last_and_in_reverse():
    """The main container first, then the sidecars from the last one."""
    inits = [spec("one", restartPolicy="Always"), spec("two", restartPolicy="Always")]
    play = Play(pod(initContainers=inits))
    play.on(Tick())
    play.on(VolumesReady())
    assert play.on(SandboxStarted(sandbox())) == [StartContainer("one", "sidecar", 0)]
    assert play.on(Started("one", running("one"))) == [StartContainer("two", "sidecar", 0)]
    assert play.on(Started("two", running("two"))) == [StartContainer("main", "main", 0)]
    play.on(Started("main", running()))
    play.on(PodChanged(deleting(play.state.pod)))
    order = []
    commands = play.on(Aborted(sandbox()))
    while commands and isinstance(commands[0], StopContainer):
        order.append([c.name for c in commands])
        commands = play.on(Observed(exited(commands[0].name, 0)))
    assert order == [["main"], ["two"], ["one"]] and commands == [Release()]


def test_a_dead_sandbox():
    """Its containers are ended, it is stopped, and a new one comes; init containers run again."""
    play = Play(pod(initContainers=[spec("init")]))
    play.on(Tick())
    play.on(VolumesReady())
    play.on(SandboxStarted(sandbox()))
    play.on(Started("init", running("init")))
    assert play.on(Observed(exited("init"))) == [StartContainer("main", "main", 0)]
    play.on(Started("main", running()))
    assert [type(c) for c in play.on(SandboxDied("sandbox0"))] == [StopContainer]
    assert play.on(Observed(exited(code=137))) == [StopSandbox("sandbox0")]
    assert play.on(SandboxStopped()) == [StartSandbox(1)]
    assert play.on(SandboxStarted(sandbox(1))) == [StartContainer("init", "init", 1)]
    play.on(Started("init", running("init", 1)))
    assert play.on(Observed(exited("init", attempt=1))) == [StartContainer("main", "main", 1)]


def test_finished_work_ends_the_pod():
    """With restartPolicy Never a pod ends by itself, and waits for its deletion."""
    play = Play(pod(restartPolicy="Never")).until_running()
    assert play.on(Observed(exited())) == [Abort()]
    assert play.on(Aborted(sandbox())) == [Release()]
    assert play.on(Released()) == [] and play.state.phase is Phase.TERMINATED
    assert play.on(Published()) == []
    assert play.on(PodChanged(deleting(play.state.pod))) == [DeleteObject()]


@pytest.mark.parametrize("event", [Evict("Evicted", "no memory"), Tick()])
def test_eviction_and_deadline(event):
    """Both end the pod as Failed with a reason."""
    play = Play(pod(activeDeadlineSeconds=100)).until_running()
    play.now = 0 if isinstance(event, Evict) else 100
    assert play.on(event) == [Abort()]
    assert play.state.ending is not None and play.state.ending.failed


def test_an_image_that_does_not_come():
    """10, 20 … s between pulls; shown as ErrImagePull first and then as ImagePullBackOff."""
    play = Play(pod())
    play.on(Tick())
    play.on(VolumesReady())
    play.on(SandboxStarted(sandbox()))
    assert play.on(StartFailed("main", "ErrImagePull", "not found")) == []
    play.now = next_wake(play.state, play.now)
    assert play.now == 2 and play.on(Tick()) == []
    assert play.state.runs["main"].waiting[0] == "ImagePullBackOff" and play.told[0].reason == "BackOff"
    assert next_wake(play.state, play.now) == 10
    play.now = 10
    assert play.on(Tick()) == [StartContainer("main", "main", 0)]
    play.on(StartFailed("main", "ErrImagePull", "not found"))
    assert play.state.runs["main"].retry_at == 30


def test_retry_ends_a_wait():
    """What was missing has come: the start is tried at once."""
    play = Play(pod())
    play.on(Tick())
    play.on(VolumesReady())
    play.on(SandboxStarted(sandbox()))
    assert play.on(StartFailed("main", "CreateContainerConfigError", "no config")) == []
    assert play.on(Retry()) == [StartContainer("main", "main", 0)]


def test_adoption():
    """A kubelet that comes back finds the pod as it is and starts nothing."""
    play = Play(pod())
    play.state = adopt(play.state, [sandbox()], [running()])
    assert play.on(Tick()) == [PrepareVolumes()]
    assert play.on(VolumesReady()) == []
    assert play.state.runs["main"].ready


def test_adoption_of_a_pod_without_sandbox_counts_on():
    """After a reboot everything has ended: a new sandbox, and containers count further."""
    play = Play(pod())
    play.state = adopt(play.state, [], [exited(code=255, attempt=3)])
    play.on(Tick())
    assert play.on(VolumesReady()) == [StartSandbox(0)]
    assert play.on(SandboxStarted(sandbox())) == [StartContainer("main", "main", 4)]


_EVENTS = st.sampled_from(
    [
        Tick(),
        VolumesReady(),
        SetupFailed(),
        SandboxStarted(sandbox()),
        SandboxDied("sandbox0"),
        SandboxStopped(),
        Started("a", running("a")),
        Started("b", running("b")),
        Observed(exited("a", 1)),
        Observed(exited("b", 0)),
        Observed(exited("a", 0, attempt=1)),
        StartFailed("a", "ErrImagePull", "x"),
        StartFailed("b", "RunContainerError", "x", exited("b", 128)),
        Probed("a", "liveness", False),
        PodChanged(deleting(pod(spec("a"), spec("b")), 3)),
        PodGone(),
        Evict("Evicted", ""),
        HookFailed("a", ""),
        Retry(),
        Published(),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_EVENTS, max_size=30))
def test_whatever_happens_a_deleted_pod_goes(events):
    """After any events in any order, deletion and honest answers to the commands bring the pod to its end."""
    play = Play(pod(spec("a"), spec("b")))
    waiting: list[signals.Command] = []
    for event in events:
        play.now += 1
        waiting += play.on(event)
    waiting += play.on(PodChanged(deleting(play.state.pod, 1)))
    waiting += play.on(PodGone())
    # The abort relists: what runs is told, and nothing is being started any more.
    for _ in range(100):
        if play.state.removed:
            return
        play.now += 5
        waiting += play.on(Tick())
        if play.state.phase is Phase.TERMINATING and not play.state.aborted:
            waiting += play.on(Aborted(play.state.sandbox))
        for name, run in list(play.state.runs.items()):
            if run.running and run.stop_at is not None:
                waiting += play.on(Observed(exited(name, 137, attempt=run.current.attempt)))
        answers, waiting = waiting, []
        for command in answers:
            if isinstance(command, Release):
                waiting += play.on(Released())
            elif isinstance(command, RemoveAll):
                waiting += play.on(Removed())
    raise AssertionError(f"the pod stays: {play.state}")


def test_wait_names_are_plain():
    """A pod that waits for nothing has no wake-up: idle means idle."""
    play = Play(pod()).until_running()
    assert next_wake(play.state, 1e9) is None
    assert containers.alive(play.state.runs) == ["main"]
