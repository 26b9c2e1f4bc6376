"""A scheduler that is saved and restored again and again decides what one decides that never was."""

from __future__ import annotations

from resonator.jobspec import TargetSpec
from resonator_hub.scheduler import Scheduler
from simulation.fleets import ROUGH, fleet
from simulation.simulator import Simulator, Stages


def restored(world: Simulator) -> Scheduler:
    """Return a copy of a world's scheduler, made of what it saves."""
    saved, ended = world.scheduler.save(), list(world.scheduler.ended())
    copy = Scheduler(world.policy, world.knobs)
    copy.restore(saved, ended)
    assert copy.save() == saved
    return copy


def test_a_fleet_in_rough_weather_goes_on_as_it_would_have() -> None:
    # Given
    undisturbed = fleet(devices=40, jobs=12, slots=6)
    undisturbed.run(until=1e5)
    # When a copy takes over every 20 seconds, also from copies
    world, copies = fleet(devices=40, jobs=12, slots=6), 0
    while len(world.ended) < 12:
        world.run(until=world.now + 20.0)
        world.scheduler = restored(world)
        copies += 1
    # Then
    assert copies > 10
    assert world.digest() == undisturbed.digest()
    for job in world.budgets:
        assert world.scheduler.status(job) == undisturbed.scheduler.status(job)
    assert world.scheduler.devices() == undisturbed.scheduler.devices()
    assert world.scheduler.census() == undisturbed.scheduler.census()
    bundles = {status.bundle.digest for status in world.scheduler.statuses() if status.bundle}
    assert len(bundles) == 12
    for bundle in bundles:
        assert world.scheduler.delivered(bundle) == undisturbed.scheduler.delivered(bundle)


def test_a_snapshot_does_not_grow_with_jobs_that_have_ended() -> None:
    # Given boxes that jobs come to, one after the other
    world = Simulator(stages=Stages(spread=0.3), faults=ROUGH, slots=4, seed=3)
    for number in range(6):
        world.add_box(f"lab/box{number}", labels=(("model", f"m{number % 2}"),))
    sizes = []
    for wave in range(6):
        for number in range(4):
            target = TargetSpec(labels={"model": f"m{number % 2}"})
            world.add_job(f"job{wave}-{number}", tasks=2, trials=32, at=world.now, target=target)
        # When all have ended
        world.run(until=world.now + 1e5)
        sizes.append(len(world.scheduler.save()))
    # Then
    assert len(world.ended) == 24
    assert max(sizes[1:]) < 1.3 * sizes[0], sizes
