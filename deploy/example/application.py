"""An application that asks the agent beside it for the counts of some words, and prints each that
has changed as one line of JSON. It stands for whatever a team runs beside the agent.

    application.py WORD...

SIDESTREAM_CONTROL says where the agent listens, for example unix:/run/sidestream/control.sock.
"""

import json
import os
import signal
import sys
import threading

import grpc

# Made from the agent's control.proto when the image is built.
from sidestream.control.v1 import control_pb2

GET = "/sidestream.control.v1.Control/Get"
ASK_EVERY_SECONDS = 0.2
ANSWER_WITHIN_SECONDS = 5


def counts(get, words):
    """The count of each word that a task of this agent has, and how far that task was."""
    keys = [word.encode() for word in words]
    request = control_pb2.GetRequest(store="counts", keys=keys)
    answer = get(request, timeout=ANSWER_WITHIN_SECONDS, wait_for_ready=True)
    for reading in answer.readings:
        for word, value in zip(words, reading.values):
            if value.HasField("value"):
                yield word, int(value.value), reading.position


def say(**fields):
    print(json.dumps(fields), flush=True)


def main(words):
    # The first process of a container has no default for this signal.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    channel = grpc.insecure_channel(os.environ["SIDESTREAM_CONTROL"])
    get = channel.unary_unary(
        GET,
        request_serializer=control_pb2.GetRequest.SerializeToString,
        response_deserializer=control_pb2.GetResponse.FromString,
    )
    told = {}
    refusal = None
    while not stop.wait(ASK_EVERY_SECONDS):
        try:
            for word, count, position in counts(get, words):
                if told.get(word) != count:
                    told[word] = count
                    offset = position.changelog_offset
                    say(word=word, count=count, task=position.task, changelog_offset=offset)
            refusal = None
        except grpc.RpcError as error:
            # Before the first task is there, while one is restored, or without the agent: all pass.
            if refusal != error.code():
                refusal = error.code()
                say(waiting=error.details(), code=refusal.name)
    say(stopped=True)


main(sys.argv[1:])
