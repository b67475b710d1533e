"""Runs the cases of WebAssembly/wasi-testsuite with `copepod run`, for the suite's own runner: see `run` beside this.

COPEPOD_BIN names the agent.
"""

import os
import subprocess

COPEPOD = os.environ.get("COPEPOD_BIN", "copepod")


def get_name():
    return "copepod"


def get_version():
    said = subprocess.run([COPEPOD, "--version"], encoding="UTF-8", capture_output=True, check=True)
    return said.stdout.split()[1]


def get_wasi_versions():
    return ["wasm32-wasip1"]


def get_wasi_worlds():
    return ["wasi:cli/command"]


def get_timeout_seconds():
    return 60.0


def compute_argv(test_path, args_env_root, proposals, wasi_world, wasi_version):
    """args_env_root: the guest's arguments, its environment, and the folder that is to be its root, if any."""
    args, env, root = args_env_root
    argv = [COPEPOD, "run", "--log-level", "error"]
    for name, value in env.items():
        argv += ["--env", f"{name}={value}"]
    if root:
        argv += ["--dir", f"{root}::/"]
    return argv + [str(test_path), "--", *args]
