//go:build !linux

package logs

import "os"

// NewPipe returns ErrNoPipes: this is not Linux.
func NewPipe(name string) (p Pipe, app *os.File, err error) { return Pipe{}, nil, ErrNoPipes }

// Reopen returns ErrNoPipes: this is not Linux.
func Reopen(path, name string) (Pipe, error) { return Pipe{}, ErrNoPipes }

func pipeSize(int) (int, error) { return 0, ErrNoPipes }

type poll struct{ done chan struct{} }

func newPoll() (*poll, error) { return nil, ErrNoPipes }

func (*poll) add(int, chan<- struct{}) error { return ErrNoPipes }

func (*poll) arm(int) error { return ErrNoPipes }

func (*poll) remove(int) {}

func (*poll) close() {}

func mapRecord(*os.File) ([]byte, error) { return nil, ErrNoPipes }

func unmapRecord([]byte) error { return nil }

func splice(int, *os.File, int64, int) (int, error) { return 0, ErrNoPipes }

func punch(*os.File, int64, int64) error { return ErrNoPipes }
