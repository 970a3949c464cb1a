"""A gRPC service of plain bytes, and a client that calls it: `server` or `client PORT CA_FILE TOKEN`.

The client goes through the gateway by TLS; the server speaks HTTP/2 in the clear. Says `ok NAME` for each check.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "test.Bytes"


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    if request == b"fail":
        context.set_trailing_metadata((("x-detail", "of the failure"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not \u00fcber now: 100%")
    if request == b"identity":
        assert "authorization" not in metadata, metadata
        context.send_initial_metadata((("x-initial", "first"),))
        context.set_trailing_metadata((("x-trailing", "last"), ("x-bytes-bin", b"\x00\xff")))
        words = (metadata["x-auth-subject"], metadata["x-own"], metadata["x-own-bin"].hex())
        return " ".join(words).encode()
    if request == b"slow":
        done = threading.Event()
        context.add_callback(done.set)
        done.wait(30)
    return request[::-1]


def many(request, context):
    for n in range(int(request)):
        yield b"%d" % n


def collect(requests, context):
    return b"+".join(requests)


def both(requests, context):
    for request in requests:
        if request == b"fail":
            context.abort(grpc.StatusCode.ABORTED, "in the middle")
        yield request.upper()


def serve():
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()


def fails(call, code):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError("it did not fail")


def client(port, ca_file, token):
    with open(ca_file, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    channel = grpc.secure_channel(f"localhost:{port}", credentials)
    own = (("authorization", f"Bearer {token}"), ("x-own", "value"), ("x-own-bin", b"\x00\x01"))

    def path(name):
        return f"/{SERVICE}/{name}"

    def ok(name):
        print("ok", name, flush=True)

    call = channel.unary_unary(path("Unary"))
    assert call(b"hello", metadata=own, timeout=20) == b"olleh"
    assert call(b"x" * 2_000_000, metadata=own, timeout=20) == b"x" * 2_000_000
    ok("unary")

    answer, info = call.with_call(b"identity", metadata=own, timeout=20)
    assert answer == b"acme value 0001", answer
    assert dict(info.initial_metadata())["x-initial"] == "first"
    trailing = dict(info.trailing_metadata())
    assert trailing["x-trailing"] == "last" and trailing["x-bytes-bin"] == b"\x00\xff", trailing
    ok("metadata")

    error = fails(lambda: call(b"fail", metadata=own, timeout=20), grpc.StatusCode.FAILED_PRECONDITION)
    assert error.details() == "not \u00fcber now: 100%", error.details()
    assert dict(error.trailing_metadata())["x-detail"] == "of the failure"
    ok("status")

    fails(lambda: channel.unary_unary(path("Nothing"))(b"", metadata=own, timeout=20), grpc.StatusCode.UNIMPLEMENTED)
    ok("unimplemented")

    began = time.monotonic()
    fails(lambda: call(b"slow", metadata=own, timeout=0.3), grpc.StatusCode.DEADLINE_EXCEEDED)
    assert time.monotonic() - began < 15
    ok("deadline")

    parts = list(channel.unary_stream(path("Many"))(b"500", metadata=own, timeout=20))
    assert parts == [b"%d" % n for n in range(500)]
    ok("server streaming")

    answer = channel.stream_unary(path("Collect"))(iter([b"a", b"b", b"c"]), metadata=own, timeout=20)
    assert answer == b"a+b+c", answer
    ok("client streaming")

    turn = threading.Semaphore(0)

    def asking():
        for request in (b"one", b"two", b"three"):
            yield request
            # The next is asked when this one is answered: nothing on the way may wait for more.
            assert turn.acquire(timeout=20)

    answers = []
    for answer in channel.stream_stream(path("Both"))(asking(), metadata=own, timeout=60):
        answers.append(answer)
        turn.release()
    assert answers == [b"ONE", b"TWO", b"THREE"], answers
    error = fails(
        lambda: list(channel.stream_stream(path("Both"))(iter([b"a", b"fail"]), metadata=own, timeout=20)),
        grpc.StatusCode.ABORTED,
    )
    assert error.details() == "in the middle"
    ok("bidirectional")

    fails(lambda: call(b"hello", metadata=(("authorization", "Bearer x"),), timeout=20), grpc.StatusCode.UNAUTHENTICATED)
    fails(lambda: call(b"hello", timeout=20), grpc.StatusCode.UNAUTHENTICATED)
    ok("refusals")


if __name__ == "__main__":
    serve() if sys.argv[1] == "server" else client(*sys.argv[2:])
