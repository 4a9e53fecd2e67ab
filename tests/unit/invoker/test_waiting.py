"""The queues of those who wait: taking some out leaves the others in their order, and the counts right."""

from tests.unit.invoker.test_pool import a_job

from visp.invoker.waiting import Waiting


def test_who_is_withdrawn_is_gone_and_the_others_keep_their_turn() -> None:
    waiting = Waiting()
    for n, (name, namespace) in enumerate([("a", "x"), ("a", "x"), ("b", "x"), ("a", "x"), ("c", "y")]):
        waiting.push(a_job(name, f"{n}", float(n), 256, namespace=namespace))
    gone = {"0", "3", "4"}
    taken = waiting.withdraw(lambda job: job.message.id in gone)
    assert {job.message.id for job in taken} == gone
    assert len(waiting) == 2
    order = [waiting.pop(key, 9.0).message.id for key in waiting.in_turn()]
    assert order == ["1", "2"]
    assert not waiting
    assert len(waiting) == 0
