"""The agent's machine under lost, repeated and reordered messages, crashes and restarts."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from resonator.failures import Failure, FailureKind
from resonator.jobspec import Measure
from resonator.messages import (
    BlobRef,
    Identity,
    KernelPush,
    KernelResult,
    Message,
    Offer,
    WindowClose,
    WindowClosed,
    WindowGrant,
    WindowOpened,
    WindowRefused,
)
from resonator_agent import commands as do
from resonator_agent import events as ev
from resonator_agent.machine import Machine, State
from resonator_agent.naming import CLAIM_S, Bearer

CREDIT = 1000
IDENTITY = Identity(
    architecture="x86_64",
    cpu_model="test",
    cores=1,
    cores_used=(0,),
    memory=1,
    tvm_version="0",
    agent_version="0",
    offers=(Offer(kind="cpu", target="{}"),),
)
CORRUPT = Failure(kind=FailureKind.BLOB_CORRUPT)


class DeviceUnderABadNetwork(RuleBasedStateMachine):
    """Plays the hub, the network, the disk, the profiler and the clock; checks every command."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lives = 0
        self.disk: tuple[int, str | None] = (0, None)
        self.network: list[Message] = []
        self.last_grant = 0
        self.ever_opened: set[int] = set()
        self.open: int | None = None
        self.results: set[tuple[int, str]] = set()
        self.fetching: list[str] = []
        self.running: KernelPush | None = None
        self.stopping = False
        self.start()

    # --- the world --------------------------------------------------------------------------------------

    def start(self) -> None:
        self.lives += 1
        epoch, job = self.disk
        self.open = epoch if job else None
        self.fetching, self.running, self.stopping = [], None, False
        self.machine = Machine(
            IDENTITY,
            bearer=Bearer(self.lives, f"life-{self.lives}"),
            credit=CREDIT,
            highest=epoch,
            interrupted=(epoch, job) if job else None,
        )
        self.step(ev.Connected(self.now))
        self.now += CLAIM_S
        self.step(ev.Woke(self.now))

    def step(self, event: ev.Event) -> None:
        was_gone = self.machine.state is State.GONE
        commands = self.machine.step(event)
        assert not (was_gone and commands), "the gone say nothing"
        for command in commands:
            self.perform(command)

    def perform(self, command: do.Command) -> None:
        match command:
            case do.StoreWindow(epoch, job):
                assert epoch >= self.disk[0], "epochs never go back, not even over restarts"
                self.disk = (epoch, job)
            case do.Say(message):
                self.hear(message)
            case do.Fetch(ref):
                self.fetching.append(ref.digest)
            case do.Discard(digest):
                assert self.running is None or digest != self.running.blob.digest, "still being run"
                self.fetching = [other for other in self.fetching if other != digest]
            case do.StartProfiling(push):
                assert self.running is None, "one kernel at a time"
                assert push.epoch == self.open, "only kernels of the open window run"
                assert push.blob.digest not in self.fetching
                self.running, self.stopping = push, False
            case do.StopProfiling():
                assert self.running is not None
                self.stopping = True

    def hear(self, message: Message) -> None:
        match message:
            case WindowOpened(epoch=epoch):
                assert self.disk[0] == epoch, "stored before it is announced"
                if epoch != self.open:
                    assert self.open is None, "never two windows"
                    assert epoch > max(self.ever_opened, default=0)
                    assert self.running is None
                self.open = epoch
                self.ever_opened.add(epoch)
            case WindowClosed(epoch=epoch):
                assert epoch == self.open
                assert self.running is None, "a window ends after its kernel"
                self.open = None
            case WindowRefused(epoch=epoch, highest=highest):
                assert epoch <= highest or self.machine.state in {State.ENDING, State.GONE}
            case KernelResult(epoch=epoch, candidate=candidate):
                assert epoch == self.open, "results are of the current epoch"
                assert (epoch, candidate) not in self.results, "at most one result for each kernel"
                self.results.add((epoch, candidate))

    # --- the hub ----------------------------------------------------------------------------------------

    # Most of what the hub says arrives at once; the rest wanders about in the network.

    @rule(ahead=st.sampled_from([0, -1, 1, 2]), duration=st.sampled_from([5.0, 50.0]), lag=st.booleans())
    def grant(self, ahead: int, duration: float, lag: bool) -> None:
        epoch = max(0, self.last_grant + ahead)
        self.last_grant = max(self.last_grant, epoch)
        job = f"job{epoch % 2}"
        self.send(WindowGrant(epoch=epoch, job=job, duration=duration, measure=Measure()), lag)

    @rule(
        behind=st.sampled_from([0, 0, 0, 1]),
        candidate=st.sampled_from([0, 0, 1, 2, 3]),
        size=st.sampled_from([0, 100, 600]),
        lag=st.booleans(),
    )
    def push(self, behind: int, candidate: int, size: int, lag: bool) -> None:
        epoch = max(0, self.last_grant - behind)
        blob = BlobRef(digest=f"{candidate % 3:064x}", size=size)
        order = KernelPush(epoch=epoch, job=f"job{epoch % 2}", candidate=f"c{candidate}", blob=blob)
        self.send(order, lag)

    @rule(behind=st.integers(0, 1))
    def close(self, behind: int) -> None:
        self.network.append(WindowClose(epoch=max(0, self.last_grant - behind)))

    def send(self, message: Message, lag: bool) -> None:
        if lag:
            self.network.append(message)
        else:
            self.arrive(message)

    # --- the network ------------------------------------------------------------------------------------

    @precondition(lambda self: self.network)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:
        index = data.draw(st.integers(0, len(self.network) - 1))
        self.arrive(self.network[index] if again else self.network.pop(index))

    def arrive(self, message: Message) -> None:
        match message:
            case WindowGrant():
                self.step(ev.Granted(self.now, message))
            case KernelPush():
                self.step(ev.KernelPushed(self.now, message))
            case WindowClose(epoch=epoch):
                self.step(ev.CloseAsked(self.now, epoch))

    @precondition(lambda self: self.network)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.network.pop(data.draw(st.integers(0, len(self.network) - 1)))

    @rule()
    def reconnect(self) -> None:
        self.step(ev.Connected(self.now))

    @precondition(lambda self: self.fetching)
    @rule(data=st.data(), luck=st.integers(0, 5))
    def blob(self, data: st.DataObject, luck: int) -> None:
        digest = self.fetching.pop(data.draw(st.integers(0, len(self.fetching) - 1)))
        failed = ev.BlobFailed(self.now, digest, CORRUPT)
        self.step(failed if luck == 0 else ev.BlobArrived(self.now, digest))

    # --- the box ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.fetching)
    @rule()
    def all_blobs(self) -> None:
        while self.fetching:
            self.step(ev.BlobArrived(self.now, self.fetching.pop(0)))

    @precondition(lambda self: self.running is not None)
    @rule(in_time=st.booleans())
    def finish(self, in_time: bool) -> None:
        outcome = ev.Outcome(latencies=(1e-3,)) if in_time or not self.stopping else None
        self.running = None
        self.step(ev.ProfilingEnded(self.now, outcome))

    @rule(seconds=st.sampled_from([0.5, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.step(ev.Woke(self.now))

    @precondition(lambda self: len(self.results) > 3)
    @rule()
    def drain(self) -> None:
        self.step(ev.DrainAsked(self.now))

    @precondition(lambda self: len(self.results) > 1 or self.machine.state is State.GONE)
    @rule()
    def crash_and_restart(self) -> None:
        self.start()

    # --- what always holds ------------------------------------------------------------------------------

    @invariant()
    def the_credit_is_kept(self) -> None:
        assert self.machine.stage.bytes <= CREDIT

    @invariant()
    def machine_and_world_agree(self) -> None:
        window = self.machine.window
        assert (window.grant.epoch if window else None) == self.open
        assert (self.machine.current is not None) == (self.running is not None)

    @invariant()
    def what_is_ready_runs(self) -> None:
        if self.machine.state is State.READY and self.machine.window is not None:
            expired = self.now >= self.machine.window.expires
            assert expired or self.machine.stage.next_ready() is None


def test_no_network_makes_windows_overlap_or_results_double() -> None:
    run_state_machine_as_test(
        DeviceUnderABadNetwork,
        settings=settings(max_examples=300, stateful_step_count=60, deadline=None),
    )
