#!/usr/bin/python3
"""gRPC as others speak it (Debian's python3-grpcio), for spec/e2e/grpc_peer_spec.lua.

grpc_peer.py serve ADDRESS [CERT KEY [CA]]   serves /x.Y/... (CA: to those who show a certificate of it);
                                             prints "up", ends with its stdin
grpc_peer.py call TARGET                     calls our server; prints one line per call
"""
import sys
import threading
import time
from concurrent import futures

import grpc

MOST = [("grpc.max_receive_message_length", 1 << 28), ("grpc.max_send_message_length", 1 << 28)]


def no(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 % \u00e4\n")


def slow(request, context):
    time.sleep(5)
    return b""


def shout(requests, context):
    for request in requests:
        yield request.upper()


def first(requests, context):
    yield next(requests)


def early(requests, context):
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "go away")


def meta(request, context):
    given = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-head", given["x-text"]),))
    context.set_trailing_metadata((("x-tail-bin", given["x-bytes-bin"]),))
    return b"%.0f" % context.time_remaining()


def flood(request, context):
    for _ in range(int(request)):
        yield b"x" * 32768


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return {
            "Echo": unary(lambda request, context: request),
            "Big": unary(lambda request, context: b"x" * int(request)),
            "No": unary(no), "Slow": unary(slow), "Meta": unary(meta), "Who": unary(who),
            "Shout": stream(shout), "First": stream(first), "Early": stream(early),
            "Flood": grpc.unary_stream_rpc_method_handler(flood),
        }.get(details.method.split("/")[-1])


def read(path):
    with open(path, "rb") as file:
        return file.read()


def who(request, context):
    names = context.peer_identities() or (b"nobody",)
    return names[0]


def serve(address, cert=None, key=None, ca=None):
    server = grpc.server(futures.ThreadPoolExecutor(32), options=MOST)
    server.add_generic_rpc_handlers((Service(),))
    if cert:
        trust = grpc.ssl_server_credentials([(read(key), read(cert))], ca and read(ca), ca is not None)
        port = server.add_secure_port(address, trust)
    else:
        port = server.add_insecure_port(address)
    server.start()
    print("up", port, flush=True)
    sys.stdin.read()
    server.stop(0)


def told(call):
    try:
        return call()
    except grpc.RpcError as error:
        return error.code().name + ": " + error.details()


def call(target):
    channel = grpc.insecure_channel(target, options=MOST)
    unary, stream = channel.unary_unary, channel.stream_stream
    print("echo", told(lambda: unary("/a.B/Echo")(b"hi")))
    print("empty", told(lambda: unary("/a.B/Echo")(b"")))
    print("large", len(unary("/a.B/Echo")(b"x" * 20000000)))
    print("no", repr(told(lambda: unary("/a.B/No")(b""))))
    print("unknown", told(lambda: unary("/a.B/Nothing")(b"")))
    print("slow", told(lambda: unary("/a.B/Slow")(b"", timeout=0.3)).split(":")[0])
    print("gzip", told(lambda: unary("/a.B/Echo")(b"x" * 1000, compression=grpc.Compression.Gzip)))
    print("shout", b" ".join(stream("/a.B/Shout")(iter([b"a", b"", b"b"]))))
    answers = stream("/a.B/Meta")(iter([b"x"]), metadata=(("x-text", "t"), ("x-bytes-bin", b"\0\xff")))
    print("meta", list(answers), dict(answers.initial_metadata())["x-head"], dict(answers.trailing_metadata())["x-tail-bin"])
    results = []
    threads = [threading.Thread(target=lambda: results.append(unary("/a.B/Echo")(b"x"))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("many", len(results))
    wait = stream("/a.B/Wait")(iter([b"x"]))
    time.sleep(0.2)
    wait.cancel()
    print("cancelled", told(lambda: next(wait)).split(":")[0])
    channel.close()


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
