package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen opens the port. Two ways let several processes share one:
//
//   - the supervisor opened it and passes it as descriptor 3 (LISTEN_FDS, the
//     protocol of systemd's socket activation): connections that come while
//     no process runs wait in its queue;
//   - otherwise each process opens its own with SO_REUSEPORT, and the kernel
//     spreads connections over them.
func listen(addr string) (net.Listener, error) {
	passed, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if passed > 0 && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		return inherited(3)
	}
	lc := net.ListenConfig{Control: reusePort}
	return lc.Listen(context.Background(), "tcp", addr)
}

func inherited(fd uintptr) (net.Listener, error) {
	f := os.NewFile(fd, "LISTEN_FDS")
	defer f.Close() // FileListener has its own duplicate
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("use inherited descriptor %d: %w", fd, err)
	}
	return ln, nil
}

func reusePort(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if ctlErr != nil {
		return ctlErr
	}
	return err
}
