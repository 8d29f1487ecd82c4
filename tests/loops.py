"""Run coroutines on another thread, since the browser's driver has an event loop running on the main thread."""

import asyncio
from concurrent.futures import ThreadPoolExecutor


def run_async(coroutine):
    """Return what a coroutine returns."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
