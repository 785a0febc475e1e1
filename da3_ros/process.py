"""The node's process: from its start to a signal, and to an end in time."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable

import cv2
import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from .node import DepthNode

EXIT_S = 1.5  # from a signal to the end, whatever an engine is busy with
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SWITCH_S = 0.0001  # callbacks and worker hand the interpreter over this soon: by default one may hold up the other for 5 ms


def main(make_node: Callable[[], DepthNode] = DepthNode) -> None:
    """Runs the node until a signal, and ends within two seconds of it."""
    _keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    cv2.setNumThreads(1)  # a second thread saves nothing at a camera's image sizes, and waits for a core where others work
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    ended = Future()
    threading.Thread(target=_end, args=(_signal_pipe(), ended), name="da3-end", daemon=True).start()
    try:
        node = make_node()
    except (ParameterException, ValueError) as error:
        raise SystemExit(f"da3: {error}") from error
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.start()
    while rclpy.ok() and not ended.done():
        _spin(executor, node, ended)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    del node, executor
    gc.collect()  # with the last reference to the node goes its shared memory
    os._exit(0)  # torch alone takes a second to unload


def _keep_freed_memory() -> None:
    """Every image takes megabytes and frees them: given back to the system, they would cost a page fault for each 4 kB of the next."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 256 << 20)


def _spin(executor: SingleThreadedExecutor, node: DepthNode, ended: Future) -> None:
    """Until the end, or until a callback raises, which is told: one message must not take a robot's depth away."""
    try:
        executor.spin_until_future_complete(ended)
    except ExternalShutdownException:
        return  # build_only
    except Exception as error:
        node.outlive(error)


def _signal_pipe() -> int:
    """Readable as soon as a signal has come, even while the main thread is inside a long call."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return readable


def _end(readable: int, ended: Future) -> None:
    os.read(readable, 1)
    signal.setitimer(signal.ITIMER_REAL, EXIT_S)  # SIGALRM ends what an engine, or the interpreter's own end, holds up
    ended.set_result(None)
