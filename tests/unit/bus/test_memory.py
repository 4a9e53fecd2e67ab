"""The bus inside one process."""

import pytest

from visp.bus.memory import MemoryBus
from visp.bus.messages import ActivationMessage, CompletionAck, Message, decode_task, encode_task


def test_every_subscriber_hears_it_before_publish_returns_in_order() -> None:
    bus, heard = MemoryBus(), list[tuple[str, Message]]()
    bus.subscribe("a", lambda message: heard.append(("first", message)))
    bus.subscribe("a", lambda message: heard.append(("second", message)))
    bus.subscribe("b", lambda message: heard.append(("other", message)))
    message = CompletionAck("1")
    bus.publish("a", message)
    assert heard == [("first", message), ("second", message)]
    assert heard[0][1] is message


def test_a_topic_that_nobody_hears_is_no_error() -> None:
    MemoryBus().publish("a", CompletionAck("1"))


def test_a_subscriber_that_raises_hurts_neither_publisher_nor_others(capsys: pytest.CaptureFixture[str]) -> None:
    bus, heard = MemoryBus(), list[Message]()

    def fail(_: Message) -> None:
        raise RuntimeError("a bug")

    bus.subscribe("a", fail)
    bus.subscribe("a", heard.append)
    bus.publish("a", CompletionAck("1"))
    assert heard == [CompletionAck("1")]
    assert "bus.handler_failed topic=a message=CompletionAck" in capsys.readouterr().err


def test_who_has_left_hears_nothing() -> None:
    bus, first, second = MemoryBus(), list[Message](), list[Message]()
    leave = bus.subscribe("a", first.append)
    bus.subscribe("a", second.append)
    leave()
    leave()
    bus.publish("a", CompletionAck("1"))
    assert (first, second) == ([], [CompletionAck("1")])


def test_leaving_while_a_message_is_delivered() -> None:
    bus, heard = MemoryBus(), list[Message]()

    def once(message: Message) -> None:
        heard.append(message)
        leave()

    leave = bus.subscribe("a", once)
    bus.subscribe("a", heard.append)
    bus.publish("a", CompletionAck("1"))
    bus.publish("a", CompletionAck("2"))
    assert heard == [CompletionAck("1"), CompletionAck("1"), CompletionAck("2")]


def test_an_activation_reads_back_as_it_was_written() -> None:
    message = ActivationMessage(
        id="1",
        transid="t",
        namespace="n",
        namespace_uuid="u",
        subject="s",
        action="n/a",
        revision=7,
        content='{"é": "\\u0000"}'.encode(),
        received_ms=5,
        is_accepted=True,
        cause="2",
        binding="n/b",
    )
    assert decode_task(encode_task(message)) == message
