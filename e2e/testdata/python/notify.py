# What systemd-notify --ready does: says it, and waits until it was read.
import array, os, socket

path = os.environ["NOTIFY_SOCKET"]
if path.startswith("@"):
    path = "\0" + path[1:]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect(path)
    s.send(b"READY=1\nSTATUS=serving")
    r, w = os.pipe()
    s.sendmsg([b"BARRIER=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [w]))])
    os.close(w)
    os.read(r, 1)  # the end of the pipe: the other side has closed its copy
