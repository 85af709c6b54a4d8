# The same server as node/stream.js with asyncio. It handles no signal.
import asyncio, os, random, time

INTERVAL = float(os.environ.get("INTERVAL", 20)) / 1000
MAX_AGE = float(os.environ.get("MAX_AGE", "inf")) / 1000
HEAD = b"HTTP/1.1 200 OK\r\nX-Instance: %s\r\nConnection: close\r\n" % os.environ.get("NODE_APP_INSTANCE", "0").encode()


def chunk(text):
    return b"%x\r\n%s\r\n" % (len(text), text.encode())


async def stream(writer, n, i):
    writer.write(HEAD + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(chunk('event: hello\ndata: {"pid":%d}\n\n' % os.getpid()))
    bye = time.monotonic() + MAX_AGE * random.uniform(0.7, 1)
    while i < n and (n != float("inf") or time.monotonic() < bye):
        await asyncio.sleep(INTERVAL)
        i += 1
        writer.write(chunk("id: %d\ndata: message %d\n\n" % (i, i)))
        await writer.drain()
    last = "id: done\ndata: [DONE]\n\n" if i == n else "retry: 100\nevent: reconnect\ndata: old age\n\n"
    writer.write(chunk(last) + b"0\r\n\r\n")


async def answer(reader, writer):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ", 2)[1]
        if path.startswith("/stream"):
            seen = [line[14:].strip() for line in head.split("\r\n") if line.lower().startswith("last-event-id:")]
            _, _, n = path.partition("n=")
            await stream(writer, int(n) if n else float("inf"), int(seen[0]) if seen else 0)
        else:
            body = b"%d\n" % os.getpid()
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client has left
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(answer, "0.0.0.0", int(os.environ["PORT"]), backlog=2048)
    async with server:
        await server.serve_forever()


asyncio.run(main())
