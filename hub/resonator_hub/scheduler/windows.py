"""Devices and their windows: who is granted one, what is sent into it, and how it ends."""

from __future__ import annotations

from resonator.ids import DeviceId
from resonator_hub.scheduler.batch import Batch
from resonator_hub.scheduler.candidate import Candidate
from resonator_hub.scheduler.commands import CloseWindow, OpenWindow, Profile
from resonator_hub.scheduler.desk import Desk
from resonator_hub.scheduler.device import Device, Window
from resonator_hub.scheduler.events import DeviceLost, WindowOpened
from resonator_hub.scheduler.job import LEAST_WEIGHT, Job
from resonator_hub.scheduler.transitions import CandidateState, Cue, DevicePhase, Input, JobPhase

_OVERLAP = 2
"""Kernels on a device at the least, so that it never waits for the next while one is on its way."""

_TIMEOUTS = 1.5
"""A window lasts this many of a kernel's time limits at the least: a model may take some time to load."""


class Windows:
    """Grants, fills and ends windows; every method leaves the devices it touched with something to do."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    # --- who gets a device ----------------------------------------------------------------------------

    def demand(self, batch: Batch) -> None:
        """See to it that a batch's ready kernels get a device: now, or as soon as one is free."""
        desk = self._desk
        if not self._may_run(batch):
            return
        device = batch.device or self._place_for(batch)
        if device is None:
            self._queue(batch)
        elif device.window is not None and device.window.serves(batch):
            self._bind(batch, device)
            self.tend(device)
        elif device.usable:
            self._grant(device, batch)
        else:
            device.wants.put(batch.seq, desk.device_rank(batch), batch)
            self.tend(device)

    def _place_for(self, batch: Batch) -> Device | None:
        pool = batch.job.place
        idle = pool.idle.best()
        if idle is not None:
            return idle[1]
        for device_id, window in batch.job.windows.items():
            if window.opened_at is not None and window.serves(batch) and self._hungry(window):
                device = self._desk.fleet.devices[device_id]
                if device.phase is DevicePhase.RUNNING and device.trusted:
                    return device
        return None

    def _hungry(self, window: Window) -> bool:
        return len(window.outstanding) * self._desk.profile_s(window.job) < self._desk.knobs.stage_s / 2

    def _queue(self, batch: Batch) -> None:
        pool = batch.job.place
        pool.wants.put(batch.seq, self._desk.device_rank(batch), batch)
        batch.job.waiting[batch.key] = batch
        while pool.lingering:
            device = pool.lingering.pop(next(iter(pool.lingering)))
            if device.phase is DevicePhase.RUNNING:
                self.tend(device)
                return

    def _unqueue(self, batch: Batch) -> None:
        batch.job.place.wants.remove(batch.seq)
        batch.job.waiting.pop(batch.key, None)
        if batch.device is not None:
            batch.device.wants.remove(batch.seq)

    def _bind(self, batch: Batch, device: Device) -> None:
        self._unqueue(batch)
        batch.device = device
        device.batches[batch.key] = batch
        device.wants.remove(batch.seq)

    def _unbind(self, batch: Batch) -> None:
        self._unqueue(batch)
        if batch.device is not None:
            batch.device.batches.pop(batch.key, None)
            batch.device = None

    def _best_want(self, device: Device) -> Batch | None:
        best = device.wants.best(self._desk.device_rank)
        for pool in device.pools:
            want = pool.wants.best(self._desk.device_rank)
            if want is not None and (best is None or (want[0], want[1].seq) < (best[0], best[1].seq)):
                best = want
        return best[1] if best else None

    def _grant(self, device: Device, batch: Batch) -> None:
        desk, job = self._desk, batch.job
        for pool in device.pools:
            pool.idle.remove(device.id)
        if desk.policy.levels:
            job.device_share = max(job.device_share, device.clock - desk.knobs.quantum_s / LEAST_WEIGHT)
        device.clock = max(device.clock, job.device_share)
        job.place.device_clock = max(job.place.device_clock, job.device_share)
        device.epoch += 1
        duration = self._duration_s(batch)
        window = Window(device.epoch, job, batch if batch.model else None, duration, desk.now)
        window.charged_at = window.idle_since = desk.now
        device.window = job.windows[device.id] = window
        self._bind(batch, device)
        for other in device.batches.values():
            if window.serves(other):
                device.wants.remove(other.seq)
        desk.move_device(device, Cue.GRANTED)
        desk.out.append(OpenWindow(device.id, job.id, device.epoch, duration, batch.model))
        desk.timers.at(desk.now + duration + desk.knobs.grace_s, "device", device.id)
        desk.report(job.id)

    def _duration_s(self, batch: Batch) -> float:
        """Return how long a window lasts: never less than the slowest kernel may take."""
        knobs, timeout_s = self._desk.knobs, batch.job.order.measure.timeout_s
        return max(knobs.model_window_s if batch.model else knobs.window_s, _TIMEOUTS * timeout_s)

    def built(self, candidate: Candidate, blob: str, size: int, cause: Input) -> None:
        """A kernel, or a whole model, can be measured."""
        batch = candidate.batch
        self._desk.move_candidate(candidate, cause)
        candidate.kernel, candidate.size = blob, size
        batch.building -= 1
        batch.ready.append(candidate)
        self.demand(batch)

    # --- what is done with it -------------------------------------------------------------------------

    def tend(self, device: Device) -> None:
        """Do what is due for a device: grant it if it is free, else fill its window or end it."""
        if device.rests_until is not None and self._desk.now >= device.rests_until:
            device.rests_until = None
        window = device.window
        if window is None:
            self._offer(device)
            return
        self._charge(window)
        began = window.began_at if window.opened_at is None else window.opened_at
        if self._desk.now >= began + window.duration_s + self._desk.knobs.grace_s:
            self.end(device, Cue.EXPIRED, culprit=device.phase is DevicePhase.RUNNING and not device.hidden)
        elif device.phase is DevicePhase.RUNNING and not device.hidden:
            self._work(device, window)

    def _offer(self, device: Device) -> None:
        if not device.usable:
            return
        batch = self._best_want(device)
        if batch is not None:
            self._grant(device, batch)
            return
        for pool in device.pools:
            pool.idle.put(device.id, (device.strikes,), device)

    def _charge(self, window: Window) -> None:
        self._desk.charge_device(window.job, self._desk.now - window.charged_at)
        window.charged_at = self._desk.now

    def _work(self, device: Device, window: Window) -> None:
        desk = self._desk
        assert window.opened_at is not None, "a running window was opened"
        rival = self._rival(device, window)
        if not device.trusted or (rival and desk.now >= window.opened_at + desk.knobs.quantum_s):
            self.close(device)
            return
        self._fill(device, window)
        if window.outstanding:
            return
        if window.model and not window.model.live:
            self.close(device)
        elif self._next_kernel(device, window) is not None:
            self.close(device)  # no time is left for another kernel: the next window has it
        elif self._best_want(device) is not None or desk.now >= window.idle_since + desk.knobs.linger_s:
            self.close(device)
        else:
            desk.timers.at(window.idle_since + desk.knobs.linger_s, "device", device.id)
            for pool in device.pools:
                pool.lingering[device.id] = device

    def _rival(self, device: Device, window: Window) -> bool:
        want = self._best_want(device)
        if want is None or window.serves(want):
            return False
        own = [
            self._desk.device_rank(batch)
            for batch in device.batches.values()
            if window.serves(batch) and batch.live
        ]
        return not own or self._desk.device_rank(want) < min(own)

    def _fill(self, device: Device, window: Window) -> None:
        desk = self._desk
        assert window.opened_at is not None, "only an open window is filled"
        kernel_s = desk.profile_s(window.job)
        left_s = window.opened_at + window.duration_s - desk.now
        while True:
            queue_s = len(window.outstanding) * kernel_s
            fresh = not window.measured and not window.outstanding
            if not fresh and queue_s + kernel_s > left_s:
                return
            if queue_s >= desk.knobs.stage_s and len(window.outstanding) >= _OVERLAP:
                return
            candidate = self._next_kernel(device, window)
            if candidate is None:
                return
            self._push(device, window, candidate)

    def _next_kernel(self, device: Device, window: Window) -> Candidate | None:
        for batch in device.batches.values():
            if window.serves(batch) and self._may_run(batch):
                return batch.ready[0]
        for batch in window.job.waiting.values():
            if window.serves(batch) and self._may_run(batch):
                self._bind(batch, device)
                return batch.ready[0]
        return None

    def _may_run(self, batch: Batch) -> bool:
        return bool(batch.ready) and (self._desk.policy.streams or not batch.building)

    def _push(self, device: Device, window: Window, candidate: Candidate) -> None:
        batch, job = candidate.batch, candidate.batch.job
        batch.ready.popleft()
        self._desk.move_candidate(candidate, Cue.PUSHED)
        candidate.pushes.append((device.id, window.epoch))
        window.outstanding[candidate.id] = candidate
        best = batch.task.best if batch.task else None
        self._desk.out.append(
            Profile(
                device=device.id,
                epoch=window.epoch,
                job=job.id,
                candidate=candidate.id,
                blob=candidate.kernel,
                size=candidate.size,
                target_kind=job.place.offer.kind,
                race_s=best * self._desk.knobs.race if best is not None else None,
                model=batch.model,
                flops=batch.task.found.flops if batch.task else sum(task.work for task in job.tasks),
            )
        )

    # --- how it ends ----------------------------------------------------------------------------------

    def close(self, device: Device) -> None:
        """Ask a device to end its window; it is free when it says so, or when the lease is over."""
        assert device.window is not None, "only a window can be closed"
        self._desk.move_device(device, Cue.TAKEN_BACK)
        self._desk.out.append(CloseWindow(device.id, device.window.epoch))

    def end(self, device: Device, cause: Input, *, culprit: bool = False) -> None:
        """A window is over: its kernels without a result go back in the queue, the device to the next.

        With `culprit` the kernel being measured counts as the possible cause, which costs it an attempt.
        """
        self._void(device, cause, culprit=culprit)
        self.resettle(device)

    def end_all(self, cause: Input) -> None:
        """Every window is over: none of their kernels is offered to a device before all of them are."""
        devices = list(self._desk.fleet.devices.values())
        for device in devices:
            self._void(device, cause, culprit=False)
        for device in devices:
            self.resettle(device)

    def _void(self, device: Device, cause: Input, *, culprit: bool) -> None:
        window = device.window
        self._desk.move_device(device, cause)
        if device.hidden:
            self._desk.move_device(device, Cue.HIDDEN)
        device.window = None
        if window is not None:
            self._charge(window)
            window.job.windows.pop(device.id, None)
            if window.outstanding and culprit:
                next(iter(window.outstanding.values())).attempts += 1
            for candidate in reversed(window.outstanding.values()):
                self.give_back(candidate)
            if window.job.id in self._desk.jobs:
                self._desk.report(window.job.id)
        self._desk.fleet.place(device)

    def resettle(self, device: Device) -> None:
        """Find the batches of a device without a window their next place, and the device its next job."""
        for batch in list(device.batches.values()):
            if not device.trusted:
                self._unbind(batch)
            elif self._may_run(batch):
                device.wants.put(batch.seq, self._desk.device_rank(batch), batch)
            if batch.device is None:
                self.demand(batch)
        if device.window is None:
            self.tend(device)

    def give_back(self, candidate: Candidate) -> None:
        """Put a kernel without a result back at the head of its queue, or give it up."""
        job = candidate.batch.job
        self._desk.move_candidate(candidate, Cue.RETURNED)
        candidate.batch.ready.appendleft(candidate)
        draining = job.phase is JobPhase.DRAINING and not candidate.batch.model
        knobs = self._desk.knobs
        most = knobs.model_attempts if candidate.batch.model else knobs.attempts
        if draining or candidate.attempts >= most:
            self._desk.given_up.append(candidate)

    def opened(self, device: Device) -> None:
        """A device accepted its window."""
        desk, window = self._desk, device.window
        assert window is not None, "admitted events have a window"
        desk.move_device(device, WindowOpened)
        window.opened_at = window.idle_since = desk.now
        desk.timers.at(desk.now + window.duration_s + desk.knobs.grace_s, "device", device.id)
        desk.timers.at(desk.now + desk.knobs.quantum_s, "device", device.id)
        desk.report(window.job.id)
        self.tend(device)

    def answered(self, candidate: Candidate, device_id: DeviceId, epoch: int, device_time_s: float) -> None:
        """A kernel has a result: nothing waits for it any more, in whatever window it was sent again."""
        device = self._desk.fleet.devices[device_id]
        device.measured += 1
        device.busy_s += device_time_s
        for pushed_to, _ in candidate.pushes:
            window = self._desk.fleet.devices[pushed_to].window
            if window is not None and window.outstanding.get(candidate.id) is candidate:
                del window.outstanding[candidate.id]
                window.idle_since = self._desk.now
                window.measured += window.epoch == epoch

    def unanswered(self, candidate: Candidate, device: Device, epoch: int) -> None:
        """A kernel was sent in vain: it goes back in the queue, or is given up after some attempts."""
        candidate.attempts += 1
        candidate.pushes.remove((device.id, epoch))
        window = device.window
        if window is None or window.outstanding.get(candidate.id) is not candidate or window.epoch != epoch:
            return
        del window.outstanding[candidate.id]
        window.idle_since = self._desk.now
        window.measured += 1
        self.give_back(candidate)

    def strike(self, device: Device, reason: str) -> None:
        """Let a device rest after a failure of its own, which also ends its window (docs/adr/0004)."""
        if device.rests_until is not None:
            return
        knobs, now = self._desk.knobs, self._desk.now
        rest_s = min(knobs.longest_rest_s, knobs.rest_s * 2.0 ** min(device.strikes, 30))
        device.strikes += 1
        device.reason = reason
        device.rests_until = now + rest_s
        self._desk.timers.at(device.rests_until, "device", device.id)
        self._desk.stories.tell(device.id, now, f"rests {rest_s:g} s", reason)
        self._desk.fleet.place(device)

    def release(self, job: Job) -> None:
        """A job has ended: take back its windows and forget what it wanted."""
        for device_id, window in list(job.windows.items()):
            device = self._desk.fleet.devices[device_id]
            window.outstanding.clear()
            if device.phase is not DevicePhase.CLOSING:
                self.close(device)
        for batch in job.batches.values():
            self.drop_batch(batch)

    def drop_batch(self, batch: Batch) -> None:
        """A batch wants nothing more."""
        for candidate in list(batch.live.values()):
            if candidate.state is not CandidateState.GONE:
                self._desk.move_candidate(candidate, Cue.DROPPED)
        self.finish_batch(batch)

    def move_away(self, batch: Batch) -> None:
        """A batch's device is not what it was: the batch goes to another."""
        self._unbind(batch)
        self.demand(batch)

    def finish_batch(self, batch: Batch) -> None:
        """A batch's last candidate has its outcome: it leaves its device and every queue."""
        self._unbind(batch)

    def lose(self, device: Device, *, certain: bool) -> None:
        """A device is gone, which ends its window; or out of sight, and its lease goes on."""
        if certain:
            device.hidden = False
            self.end(device, DeviceLost, culprit=True)
        else:
            self.hide(device)

    def hide(self, device: Device) -> None:
        """A device is out of sight: what its window does not serve goes elsewhere."""
        device.hidden = True
        self._desk.move_device(device, Cue.HIDDEN)
        self._desk.fleet.place(device)
        for pool in device.pools:
            pool.lingering.pop(device.id, None)
        for batch in list(device.batches.values()):
            if device.window is None or not device.window.serves(batch):
                self.move_away(batch)
