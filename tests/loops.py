"""Coroutines run to their end on a thread of their own: on the main thread, the browser's driver has a loop running."""

import asyncio
from concurrent.futures import ThreadPoolExecutor


def run_async(coroutine):
    """Return what a coroutine returns."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
