"""What front and core say to each other arrives whole, however the socket cuts it."""

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.implementations.serving.channel import Channel, FrontGone
from app.implementations.serving.messages import (
    Answer,
    Attach,
    Cancel,
    Evicted,
    Failed,
    Message,
    Ready,
    Sampling,
    Submit,
    Token,
    Turn,
    decode,
    encode,
)

tokens = st.builds(
    Token,
    id=st.integers(0),
    token=st.integers(0, 2**31),
    finish=st.sampled_from([None, "stop", "length"]),
    logprob=st.none() | st.floats(max_value=0, allow_nan=False),
    top=st.lists(st.tuples(st.integers(0), st.floats(max_value=0, allow_nan=False)), max_size=3),
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Submit,
        id=st.integers(0),
        prompt_ids=st.lists(st.integers(0)),
        sampling=st.builds(
            Sampling,
            max_tokens=st.integers(1),
            temperature=st.floats(0, 10),
            seed=st.none() | st.integers(),
            stop_token_ids=st.lists(st.integers(0)),
            logprobs=st.none() | st.integers(0, 20),
        ),
        adapter=st.none() | st.text(),
        sharing=st.text(),
    ),
    st.builds(Turn, tokens=st.lists(tokens), running=st.integers(0), waiting=st.integers(0)),
    st.builds(Attach, id=st.integers(), name=st.text(), folder=st.text()),
    st.builds(Failed, id=st.integers(), status=st.integers(400, 599), message=st.text()),
    st.builds(Answer, id=st.integers(), fault=st.none() | st.text()),
    st.builds(Evicted, name=st.text()),
    st.builds(Cancel, id=st.integers()),
    st.just(Ready(8192, 49152, [1, 2], ["yes"])),
)


@settings(deadline=None)
@given(messages)
def test_a_message_is_one_line_and_comes_back_equal(message: Message) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_messages_that_the_socket_cuts_arrive_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    channel = Channel(theirs)
    line = encode(Evicted("x")) + encode(Cancel(2))
    ours.sendall(line[:7])
    assert channel.receive(wait=False) == []
    ours.sendall(line[7:-3])
    assert channel.receive(wait=False) == [Evicted("x")]
    ours.sendall(line[-3:])
    assert channel.receive(wait=True) == [Cancel(2)]
    assert channel.receive(wait=False) == []


def test_a_prompt_larger_than_the_sockets_buffer(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    message = Submit(1, list(range(300_000)), Sampling(1, stop_token_ids=[]))
    sender = threading.Thread(target=ours.sendall, args=(encode(message),))
    sender.start()
    assert Channel(theirs).receive(wait=True) == [message]
    sender.join()


def test_a_front_that_has_gone_is_noticed_in_both_directions(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    channel = Channel(theirs)
    ours.close()
    with pytest.raises(FrontGone):
        channel.receive(wait=False)
    with pytest.raises(FrontGone):
        channel.send(Evicted("x"))
