"""Paced requests over kept connections: requests.py ADDRESS CA TOKEN RATE SECONDS PATH…

Prints how many were answered well and otherwise, and the milliseconds that half, 99 of 100 and the slowest took."""

import http.client
import ssl
import sys
import threading
import time

address, authority, token, rate, seconds, *paths = sys.argv[1:]
rate, seconds = int(rate), int(seconds)
THREADS = 8
context = ssl.create_default_context(cafile=authority)
took, failed = [], []


def ask(number):
    connection = http.client.HTTPSConnection(address, 10250, timeout=20, context=context)
    begun = time.monotonic()
    for index in range(rate * seconds // THREADS):
        due = begun + index * THREADS / rate
        time.sleep(max(0, due - time.monotonic()))
        start = time.monotonic()
        try:
            connection.request(
                "GET", paths[(index + number) % len(paths)], headers={"Authorization": "Bearer " + token}
            )
            answer = connection.getresponse()
            answer.read()
            (took if answer.status == 200 else failed).append(time.monotonic() - start)
        except OSError as error:
            failed.append(repr(error))
            connection.close()


threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
begun = time.monotonic()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
whole = time.monotonic() - begun
took.sort()
at = lambda share: round(took[min(len(took) - 1, int(len(took) * share))] * 1000, 1) if took else None
print(len(took), len(failed), round(len(took) / whole), at(0.5), at(0.99), at(1))
