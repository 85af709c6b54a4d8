// A server that listens wherever it is told to, and answers with its pid: each
// argument is network=address (tcp=:8080, tcp6=[::1]:8080, unix=a.sock,
// udp=127.0.0.1:9), {i} in it is the number of the instance. It writes where it
// listens to a file ears-<pid>, or what went wrong.
//
//	LATE=1500    listens so many milliseconds after its start
//	PROBE=1      tries each port first: binds it, listens, closes it again
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	late, _ := strconv.Atoi(os.Getenv("LATE"))
	time.Sleep(time.Duration(late) * time.Millisecond)
	var said []string
	for _, arg := range os.Args[1:] {
		network, address, _ := strings.Cut(strings.ReplaceAll(arg, "{i}", os.Getenv("NODE_APP_INSTANCE")), "=")
		at, err := listen(network, address)
		if err != nil {
			at = err.Error()
		}
		said = append(said, network+" "+at)
	}
	// Renamed, so that whoever sees it sees all of it.
	name := fmt.Sprintf("ears-%d", os.Getpid())
	if err := os.WriteFile(name+".tmp", []byte(strings.Join(said, "\n")+"\n"), 0o644); err == nil {
		_ = os.Rename(name+".tmp", name)
	}
	fmt.Println(strings.Join(said, "\n"))
	select {}
}

func listen(network, address string) (at string, err error) {
	if network == "udp" {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return "", err
		}
		go func() { // until the process ends
			buf := make([]byte, 100)
			for {
				_, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteTo([]byte(strconv.Itoa(os.Getpid())), from)
			}
		}()
		return c.LocalAddr().String(), nil
	}
	if network == "unix" {
		_ = os.Remove(address)
	}
	l, err := net.Listen(network, address)
	if err == nil && os.Getenv("PROBE") != "" {
		_ = l.Close()
		l, err = net.Listen(network, address)
	}
	if err != nil {
		return "", err
	}
	go func() { // until the process ends
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) }))
	}()
	return l.Addr().String(), nil
}
