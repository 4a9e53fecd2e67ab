"""The table of a container's life."""

import pytest
from tests.unit.invoker.test_pool import a_job

from visp.invoker.slot import IDLE, TRANSITIONS, Key, Slot, SlotEvent, State


def slot_in(state: State) -> Slot:
    slot = Slot("c1", "python:3.11", 256, 0.0, Key("guest", "guest/hello", 3))
    slot.state = state
    return slot


@pytest.mark.parametrize(
    "events",
    [
        [SlotEvent.UP, SlotEvent.INIT, SlotEvent.RUN, SlotEvent.DONE],
        [SlotEvent.INIT, SlotEvent.RUN, SlotEvent.DONE, SlotEvent.RUN, SlotEvent.DONE],
        [
            *(SlotEvent.INIT, SlotEvent.RUN, SlotEvent.DONE),
            *(SlotEvent.PAUSE, SlotEvent.PAUSED, SlotEvent.RESUME, SlotEvent.RUN, SlotEvent.DONE),
        ],
    ],
    ids=["stem cell", "created for an action", "paused and resumed"],
)
def test_these_lives_end_ready(events: list[SlotEvent]) -> None:
    slot = slot_in(State.STARTING)
    for event in events:
        slot.on(event)
    assert slot.state is State.READY


@pytest.mark.parametrize("state", [state for state in State if state not in (State.REMOVING, State.GONE)])
def test_whatever_it_does_it_can_be_removed(state: State) -> None:
    slot = slot_in(state)
    slot.on(SlotEvent.REMOVE)
    slot.on(SlotEvent.REMOVED)
    assert slot.state is State.GONE


@pytest.mark.parametrize("pair", [(s, e) for s in State for e in SlotEvent if (s, e) not in TRANSITIONS])
def test_what_is_not_in_the_table_raises_and_changes_nothing(pair: tuple[State, SlotEvent]) -> None:
    state, event = pair
    slot = slot_in(state)
    with pytest.raises(LookupError, match=f"{event.name} in state {state.name}"):
        slot.on(event)
    assert slot.state is state


def test_what_takes_no_more_can_only_go() -> None:
    assert {event for state, event in TRANSITIONS if state is State.DRAINING} == {SlotEvent.REMOVE}


def test_room_is_for_a_run_less_than_it_takes() -> None:
    slot = slot_in(State.READY)
    slot.concurrency = 2
    assert slot.has_room
    slot.on(SlotEvent.RUN)
    for id, has_room in (("1", True), ("2", False)):
        slot.jobs.add(a_job("hello", id, 0.0, 256))
        assert slot.has_room is has_room
    slot.jobs.pop()
    slot.on(SlotEvent.SPEND)
    assert not slot.has_room


def test_code_is_loaded_once_only() -> None:
    loaders = {state for state, event in TRANSITIONS if event is SlotEvent.INIT}
    assert loaders == {State.STARTING, State.STEMCELL}


def test_what_works_is_never_idle() -> None:
    assert State.BUSY not in IDLE
    assert State.INITIALIZING not in IDLE


def test_repr_says_whom_it_serves() -> None:
    assert repr(slot_in(State.READY)) == "<c1 python:3.11 256MB READY guest:guest/hello@3>"
