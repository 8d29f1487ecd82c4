"""A reverse proxy that offers an app under a path prefix, as nginx or Caddy would, in a process of its own.

python tests/proxy.py APP_PORT PREFIX keep|strip     prints the port of the proxy, and serves until it is ended
"""

import asyncio
import subprocess
import sys
from contextlib import contextmanager, suppress


@contextmanager
def reverse_proxy(port, prefix, *, strips):
    """Offer the app on a port under `prefix`; give the address.

    strips: whether the proxy takes the prefix off before it passes a request on, or keeps it.
    """
    command = [sys.executable, __file__, str(port), prefix, "strip" if strips else "keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}{prefix}"
        finally:
            process.kill()


async def serve(app_port, prefix, strips):
    async def connect(reader, writer):
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            line, headers = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)
            method, path, version = line.split(b" ")
            if path == b"/favicon.ico":  # browsers ask the site for one before the page names its own
                writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            elif not path.startswith(prefix + b"/"):
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            else:
                app_reader, app_writer = await asyncio.open_connection("127.0.0.1", app_port)
                line = b" ".join([method, path.removeprefix(prefix) if strips else path, version])
                # one request for each connection, so that only the first head has to be rewritten
                lines = [each for each in headers.split(b"\r\n") if not each.lower().startswith(b"connection:")]
                app_writer.write(b"\r\n".join([line, b"connection: close", *lines]))
                upload = asyncio.create_task(copy(reader, app_writer))
                await copy(app_reader, writer)
                upload.cancel()
                app_writer.close()
        writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def copy(reader, writer):
    """Pass on bytes as they come, until there are no more or nobody takes them."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3] == "strip"))
