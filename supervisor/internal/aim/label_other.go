//go:build !linux

package aim

import (
	"errors"
	"syscall"
)

func connectLabelled(uint32) func(network, address string, c syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error {
		return errors.New("connections are not steered on this system")
	}
}
