package main

import (
	"context"
	"errors"
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
func listen(addr string) (*net.TCPListener, error) {
	ln, err := open(addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		ln.Close()
		return nil, fmt.Errorf("descriptor 3 is a %s socket, not a TCP one", ln.Addr().Network())
	}
	return tcp, nil
}

func open(addr string) (net.Listener, error) {
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

// door is a listener that closes itself after its deadline, when its queue is
// empty. Connections that the kernel has put there belong to this process: if
// the port were just closed they would be reset, or wait for as long as someone
// else holds it. Never shutdown(): that would close it for all who share it.
type door struct{ *net.TCPListener }

func (d door) Accept() (net.Conn, error) {
	c, err := d.TCPListener.Accept()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return c, err
	}
	if c, err = d.waiting(); err != nil {
		d.Close()
	}
	return c, err
}

// waiting takes a connection out of the queue. It never blocks; EAGAIN says
// that there is none. (After a deadline, net's own Accept does not look.)
func (d door) waiting() (net.Conn, error) {
	raw, err := d.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	ctlErr := raw.Control(func(l uintptr) {
		for {
			// The descriptor is non-blocking, as all of package net.
			fd, _, err = syscall.Accept(int(l))
			if err != syscall.EINTR && err != syscall.ECONNABORTED {
				return
			}
		}
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return nil, fmt.Errorf("take a waiting connection: %w", err)
	}
	f := os.NewFile(uintptr(fd), "accepted")
	defer f.Close() // FileConn has its own duplicate
	return net.FileConn(f)
}
