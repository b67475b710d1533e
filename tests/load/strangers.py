"""Clients that mean no good: strangers.py ADDRESS KIND COUNT SECONDS

`silent` connects and says nothing; `slow` shakes hands and then sends a byte of a header each second; `huge` sends a
request whose header has no end. Prints how many connections were made, and how many the server had closed by the end."""

import socket
import ssl
import sys
import time

address, kind, count, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
connections, closed = [], 0
end = time.monotonic() + seconds

for _ in range(count):
    try:
        connection = socket.create_connection((address, 10250), timeout=5)
        if kind != "silent":
            connection = context.wrap_socket(connection)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ")
        connection.settimeout(0.01)
        connections.append(connection)
    except OSError:
        closed += 1

made = len(connections)
while connections and time.monotonic() < end:
    for connection in list(connections):
        try:
            if kind == "slow":
                connection.sendall(b"x")
            elif kind == "huge":
                connection.sendall(b"x" * 65536)
            if connection.recv(1) == b"":
                raise ConnectionResetError
        except TimeoutError:
            pass
        except OSError:
            connections.remove(connection)
            closed += 1
    if kind != "huge":
        time.sleep(1)
print(made, closed)
