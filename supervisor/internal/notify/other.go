//go:build !linux

package notify

import (
	"errors"
	"os"
)

// ErrUnsupported is returned on systems other than Linux.
var ErrUnsupported = errors.New("hear from apps: needs Linux")

// Socket receives sd_notify datagrams.
type Socket struct{}

// Listen is not supported here.
func Listen(string) (*Socket, error) { return nil, ErrUnsupported }

// Name is empty.
func (*Socket) Name() string { return "" }

// Close does nothing.
func (*Socket) Close() error { return nil }

// Serve is not supported here.
func (*Socket) Serve(func(int, map[string]string)) error { return ErrUnsupported }

func pollable(*os.File) (*os.File, error) { return nil, ErrUnsupported }

// NewChannel is not supported here.
func NewChannel() (ours, theirs *os.File, err error) { return nil, nil, ErrUnsupported }
