# Takes its socket as systemd's socket activation passes it.
import os, signal, socket, sys

if os.environ.get("LISTEN_PID") != str(os.getpid()):
    sys.exit("LISTEN_PID is %r, the pid is %d" % (os.environ.get("LISTEN_PID"), os.getpid()))
if os.environ.get("LISTEN_FDS") != "1":
    sys.exit("LISTEN_FDS is %r" % os.environ.get("LISTEN_FDS"))

stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
listener = socket.socket(fileno=3)
listener.settimeout(0.05)  # so that it sees the signal between two connections
print("serving", os.environ.get("LISTEN_FDNAMES"), flush=True)
while not stopped:
    try:
        conn, _ = listener.accept()
    except TimeoutError:
        continue
    conn.settimeout(10)
    conn.recv(4096)
    body = b"%d\n" % os.getpid()
    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    conn.close()
