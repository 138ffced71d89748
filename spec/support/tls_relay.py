#!/usr/bin/python3
"""What ends TLS in front of a server that does not speak it: tls_relay.py CERT KEY HOST:PORT

Takes TLS with h2 at a free port of 127.0.0.1 and passes the bytes on; prints "up PORT", ends with its stdin.
"""
import socket
import ssl
import sys
import threading


def pump(near, far):
    try:
        while data := near.recv(65536):
            far.sendall(data)
    except OSError:
        pass
    for end in near, far:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def relay(conn, trust, target):
    far = socket.create_connection(target)
    near = trust.wrap_socket(conn, server_side=True)
    threading.Thread(target=pump, args=(near, far), daemon=True).start()
    pump(far, near)


def main(cert, key, target):
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(cert, key)
    trust.set_alpn_protocols(["h2"])
    host, port = target.rsplit(":", 1)
    listener = socket.create_server(("127.0.0.1", 0))
    print("up", listener.getsockname()[1], flush=True)

    def accept_all():
        while True:
            conn, _ = listener.accept()
            threading.Thread(target=relay, args=(conn, trust, (host, int(port))), daemon=True).start()

    threading.Thread(target=accept_all, daemon=True).start()
    sys.stdin.read()


main(*sys.argv[1:])
