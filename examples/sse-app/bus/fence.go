package main

import (
	"bufio"
	"bytes"
	"crypto/subtle"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	places  = 1000            // connections at a time
	hurry   = 5 * time.Second // for the first command
	unread  = time.Second     // how long everybody waits for a client that does not read
	firstly = 1024            // bytes of a first command
)

// gate lets those in who know the password. miniredis asks for it as well, but
// not before it has read whatever it was sent: three bytes from anybody on this
// machine would be its end.
type gate struct {
	password string
	in       func(net.Conn) // where the connections go
	places   chan struct{}
}

func newGate(password string, in func(net.Conn)) *gate {
	return &gate{password, in, make(chan struct{}, places)}
}

// open takes connections until ln is closed.
func (g *gate) open(ln net.Listener) {
	for {
		g.places <- struct{}{}
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, most likely
			<-g.places
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go g.greet(&guest{Conn: c, leave: sync.OnceFunc(func() { <-g.places })}) // for at most hurry
	}
}

// greet reads the first command, which must bring the password, and hands the
// connection on as if it had not been read.
func (g *gate) greet(c *guest) {
	c.SetReadDeadline(time.Now().Add(hurry))
	var read bytes.Buffer
	first, err := command(bufio.NewReader(io.TeeReader(io.LimitReader(c.Conn, firstly), &read)))
	given, ok := passwordOf(first)
	if err != nil || !ok || subtle.ConstantTimeCompare([]byte(given), []byte(g.password)) != 1 {
		c.Write([]byte("-NOAUTH the first command must bring the password\r\n"))
		c.Close()
		return
	}
	c.SetReadDeadline(time.Time{})
	c.r = io.MultiReader(&read, c.Conn)
	g.in(c)
}

// passwordOf finds it in AUTH [user] password and in HELLO 2 AUTH user password.
func passwordOf(command []string) (password string, ok bool) {
	n := len(command)
	switch {
	case (n == 2 || n == 3) && strings.EqualFold(command[0], "AUTH"):
		return command[n-1], true
	case n >= 5 && strings.EqualFold(command[0], "HELLO") && strings.EqualFold(command[2], "AUTH"):
		return command[4], true
	}
	return "", false
}

// command reads an array of strings, as clients send them.
func command(r *bufio.Reader) ([]string, error) {
	n, err := size(r, '*', 8)
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		length, err := size(r, '$', firstly)
		if err != nil {
			return nil, err
		}
		b := make([]byte, length+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:length])
	}
	return args, nil
}

// size reads a line with a mark and a number.
func size(r *bufio.Reader, mark byte, most int) (int, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || text == "" || text[0] != mark {
		return 0, errors.New("not a command")
	}
	n, err := strconv.Atoi(text[1:])
	if err != nil || n < 0 || n > most {
		return 0, errors.New("not a command that comes first")
	}
	return n, nil
}

// guest is a connection whose other end must read: miniredis does nothing else
// while it writes, and a process that was stopped in its debugger would stop all.
type guest struct {
	net.Conn
	r     io.Reader
	leave func()
}

func (c *guest) Read(b []byte) (int, error) { return c.r.Read(b) }

func (c *guest) Write(b []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(unread))
	n, err := c.Conn.Write(b)
	if err != nil {
		c.Conn.Close()
	}
	return n, err
}

func (c *guest) Close() error {
	c.leave()
	return c.Conn.Close()
}
