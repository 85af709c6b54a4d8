import asyncio, os


async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    body = b"%d\n" % os.getpid()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


async def main():
    # No host: asyncio binds 0.0.0.0 and :: one after the other.
    server = await asyncio.start_server(answer, None, int(os.environ["PORT"]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
