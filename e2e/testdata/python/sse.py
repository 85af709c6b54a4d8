"""A page, /stream and /send_message as a Flask app with flask-sse has them,
with nothing but the standard library. One process: who sends must be where
the stream is."""
import json
import os
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

lock, clients = threading.Lock(), set()


def publish(data, kind):
    event = "event:%s\ndata:%s\n\n" % (kind, json.dumps(data))
    with lock:
        for q in clients:
            q.put(event.encode())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        routes = {"/": self.page, "/stream": self.stream, "/send_message": self.send_message}
        routes.get(self.path.split("?")[0], lambda: self.answer(404, b"not here\n"))()

    def page(self):
        self.answer(200, b"<!doctype html><title>stream</title><script>new EventSource('/stream')</script>\n")

    def send_message(self):
        publish({"message": "Hello, SSE!"}, "message")
        self.answer(200, b"Message sent!")

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")  # ends with the connection
        self.end_headers()
        q = queue.Queue()
        with lock:
            clients.add(q)
        try:
            self.wfile.write(b":\n")
            while True:
                self.wfile.write(q.get())
        except OSError:
            pass  # the client left
        finally:
            with lock:
                clients.discard(q)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler)
server.daemon_threads = True
server.serve_forever()
