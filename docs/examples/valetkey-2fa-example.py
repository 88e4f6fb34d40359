#!/usr/bin/python3 -B
"""An enrolment plugin in Python: whoever has a file of his name in a folder has a second factor.

    valetkey-2fa-example.py FOLDER

Needs Debian's python3-grpcio; enrolment_pb2.py, which must lie beside it, was made from plugin/enrolment.proto by protoc.
"""
import os
import stat
import sys
import threading
from concurrent import futures

import grpc

import enrolment_pb2 as pb

PARALLEL = 8  # checks at once; two threads more keep the sign of life and the end from waiting behind them


def check(login):
    """Answer for a login. What cannot be found out is an exception, never an answer."""
    if "/" in login or "\0" in login or login.startswith(".") or len(login.encode()) > 255:
        return pb.CheckReply(status=pb.CheckReply.ACCOUNT_UNKNOWN, reason_code="odd_login")
    os.stat(sys.argv[1])  # a folder that is away says nothing about anybody
    try:
        found = os.stat(os.path.join(sys.argv[1], login))
    except FileNotFoundError:  # and no other error, which os.path.isfile would take for "no"
        return pb.CheckReply(status=pb.CheckReply.NOT_ENROLLED, reason_code="no_file")
    if not stat.S_ISREG(found.st_mode):
        return pb.CheckReply(status=pb.CheckReply.NOT_ENROLLED, reason_code="not_a_file")
    return pb.CheckReply(status=pb.CheckReply.ENROLLED, valid_for_seconds=300)


def on_check(request, context):
    if not 0 < len(request.login.encode()) <= 512:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no login, or too long a one")
    try:
        return check(request.login)
    except Exception as e:
        context.abort(grpc.StatusCode.UNKNOWN, f"{type(e).__name__}: {e}"[:500])


def main():
    if os.environ.get("VALETKEY_ENROLMENT_PLUGIN") != "b0a3f1d6-enrolment" or len(sys.argv) != 2:
        sys.exit(f"{sys.argv[0]}: this is a plugin that valetkeyd starts, with a folder as its argument")
    if "1" not in os.environ.get("PLUGIN_PROTOCOL_VERSIONS", "").split(","):
        sys.exit("the daemon speaks another version of the protocol")
    end = threading.Event()

    def unary(call, request=bytes, reply=bytes):
        decode = request.FromString if request is not bytes else None
        encode = reply.SerializeToString if reply is not bytes else None
        return grpc.unary_unary_rpc_method_handler(call, decode, encode)

    server = grpc.server(futures.ThreadPoolExecutor(PARALLEL + 2), options=[("grpc.max_receive_message_length", 64 << 10)])
    describe = pb.DescribeReply(name="valetkey-2fa-example", version="1.0", max_parallel=PARALLEL)
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("valetkey.enrolment.v1.Enrolment", {
            "Describe": unary(lambda request, context: describe, pb.DescribeRequest, pb.DescribeReply),
            "Check": unary(on_check, pb.CheckRequest, pb.CheckReply),
        }),
        grpc.method_handlers_generic_handler("plugin.GRPCController", {
            "Shutdown": unary(lambda request, context: end.set() or b""),  # an empty message is no bytes
        }),
    ))
    path = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "enrolment")
    server.add_insecure_port("unix:" + path)
    server.start()
    print(f"1|1|unix|{path}|grpc", flush=True)
    end.wait()
    server.stop(0.2).wait()


if __name__ == "__main__":
    main()
