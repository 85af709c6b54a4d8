# The same server as node/stream.js for any WSGI server.
import os, random, time

INTERVAL = float(os.environ.get("INTERVAL", 20)) / 1000
MAX_AGE = float(os.environ.get("MAX_AGE", "inf")) / 1000
INSTANCE = os.environ.get("NODE_APP_INSTANCE", "0")


def events(n, i):
    yield b'event: hello\ndata: {"pid":%d}\n\n' % os.getpid()
    bye = time.monotonic() + MAX_AGE * random.uniform(0.7, 1)
    while i < n and (n != float("inf") or time.monotonic() < bye):
        time.sleep(INTERVAL)
        i += 1
        yield b"id: %d\ndata: message %d\n\n" % (i, i)
    yield b"id: done\ndata: [DONE]\n\n" if i == n else b"retry: 100\nevent: reconnect\ndata: old age\n\n"


def app(environ, start_response):
    stream = environ["PATH_INFO"] == "/stream"
    start_response("200 OK", [("Content-Type", "text/event-stream" if stream else "text/plain"), ("X-Instance", INSTANCE)])
    if not stream:
        return [b"%d\n" % os.getpid()]
    _, _, n = environ["QUERY_STRING"].partition("n=")
    return events(int(n) if n else float("inf"), int(environ.get("HTTP_LAST_EVENT_ID", 0)))
