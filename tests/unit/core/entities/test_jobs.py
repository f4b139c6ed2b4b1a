"""The table of a job's moves."""

from app.core.entities.jobs import FINAL_STATES, RUNNING_STATES, TRANSITIONS, JobState


def reachable(start: JobState) -> set[JobState]:
    seen, frontier = {start}, [start]
    while frontier:
        following = TRANSITIONS[frontier.pop()] - seen
        seen |= following
        frontier += following
    return seen


def test_every_state_has_a_line() -> None:
    assert set(TRANSITIONS) == set(JobState)


def test_the_final_states_are_succeeded_failed_and_cancelled() -> None:
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == FINAL_STATES


def test_every_state_is_reached_from_the_first_and_can_end() -> None:
    assert reachable(JobState.VALIDATING_FILES) == set(JobState)
    for state in JobState:
        assert reachable(state) & FINAL_STATES


def test_no_state_moves_to_itself_and_validation_is_never_repeated() -> None:
    for state, following in TRANSITIONS.items():
        assert state not in following
        assert JobState.VALIDATING_FILES not in following


def test_only_a_job_that_trains_succeeds_and_any_that_is_not_final_can_be_cancelled() -> None:
    assert tuple(state for state in JobState if JobState.SUCCEEDED in TRANSITIONS[state]) == RUNNING_STATES
    assert {state for state in JobState if JobState.CANCELLED in TRANSITIONS[state]} == set(
        JobState
    ) - FINAL_STATES
