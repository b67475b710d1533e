"""Seconds that a program which imports nothing takes in wasmtime, compiled before: the best of some rounds."""

import sys
import time

import wasmtime

engine = wasmtime.Engine()
module = wasmtime.Module.from_file(engine, sys.argv[1])
best = None
for _ in range(int(sys.argv[2])):
    store = wasmtime.Store(engine)
    start = wasmtime.Instance(store, module, []).exports(store)["_start"]
    begun = time.perf_counter()
    start(store)
    took = time.perf_counter() - begun
    best = took if best is None else min(best, took)
print(best)
