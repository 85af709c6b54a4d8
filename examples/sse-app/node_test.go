package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// script is a running script of testdata/clients. It tells what happens in
// lines of JSON, while it happens.
type script struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	lines  *bufio.Reader
	stderr bytes.Buffer
	late   *time.Timer
}

// node starts a script; in is its standard input, as JSON. It ends with the test.
func node(t *testing.T, name string, in any) *script {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node; packaging/test-tools.sh installs it")
	}
	if _, err := os.Stat("testdata/clients/node_modules/.installed"); err != nil {
		t.Skip("the npm packages are not there; packaging/test-tools.sh installs them")
	}
	input, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{t: t, name: name, cmd: exec.Command("node", name)}
	s.cmd.Dir, s.cmd.Stdin, s.cmd.Stderr = "testdata/clients", bytes.NewReader(input), &s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.lines = bufio.NewReaderSize(out, 64<<10)
	s.late = time.AfterFunc(3*patience, func() { s.cmd.Process.Kill() }) // then next fails
	t.Cleanup(s.end)
	return s
}

// next reads a line into v; false: the script has ended, and well.
func (s *script) next(v any) bool {
	s.t.Helper()
	line, err := s.lines.ReadBytes('\n')
	if errors.Is(err, io.EOF) && len(line) == 0 {
		if err := s.cmd.Wait(); err != nil {
			s.t.Fatalf("node %s: %v\n%s", s.name, err, &s.stderr)
		}
		return false
	}
	if err != nil {
		s.t.Fatalf("node %s: %v after %.300q", s.name, err, line)
	}
	if err := json.Unmarshal(line, v); err != nil {
		s.t.Fatalf("node %s printed %.300q: %v", s.name, line, err)
	}
	return true
}

func (s *script) end() {
	s.late.Stop()
	s.cmd.Process.Kill()
	s.cmd.Wait()
}
