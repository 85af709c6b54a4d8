package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gpm/supervisor"
)

// retryWrite is how long a record waits that the disk refused.
const retryWrite = time.Second

// store keeps one record per app in home/state: temp file, fsync, rename. Its
// goroutine (run) writes; Save and Forget only leave word, so that nobody who
// decides waits for a disk.
type store struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex
	pending map[string]*supervisor.Record // by app name; nil: remove
	written map[string][]byte
	problem error // of the last write
	busy    bool  // a record is on its way to the disk
	ended   bool  // run has returned
	wake    chan struct{}
	idle    *sync.Cond // signalled when pending became empty
}

func openStore(dir string, log *slog.Logger) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	s := &store{dir: dir, log: log, pending: map[string]*supervisor.Record{}, written: map[string][]byte{}, wake: make(chan struct{}, 1)}
	s.idle = sync.NewCond(&s.mu)
	return s, nil
}

func (s *store) path(app string) string {
	return filepath.Join(s.dir, url.PathEscape(app)+".json")
}

// Save writes r soon. It is called on the brain's goroutine: encoding and disk
// are the store's.
func (s *store) Save(r supervisor.Record) { s.put(r.App.Name, &r) }

// Forget removes the record of an app soon.
func (s *store) Forget(app string) { s.put(app, nil) }

func (s *store) put(app string, r *supervisor.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending[app] = r
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run is the store's goroutine; it ends with stop.
func (s *store) run(stop <-chan struct{}) {
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-s.wake:
		case <-retry.C:
		case <-stop:
			s.mu.Lock()
			s.ended = true // from here on Sync writes by itself
			s.idle.Broadcast()
			s.mu.Unlock()
			return
		}
		for s.writeOne() {
		}
		if s.left() > 0 {
			retry.Reset(retryWrite)
		}
	}
}

func (s *store) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending)
}

// writeOne writes one pending record; false if there is none, or if the disk
// refused it (it stays pending and is tried again soon).
func (s *store) writeOne() bool {
	s.mu.Lock()
	var app string
	var r *supervisor.Record
	found := false
	for app, r = range s.pending {
		found = true
		break
	}
	if !found {
		s.idle.Broadcast()
		s.mu.Unlock()
		return false
	}
	delete(s.pending, app)
	s.busy = true
	old := s.written[app]
	s.mu.Unlock()

	b, err := s.write(app, r, old)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem, s.busy = err, false
	if err != nil {
		s.log.Error("write record", "app", app, "error", err)
		if _, newer := s.pending[app]; !newer {
			s.pending[app] = r
		}
		s.idle.Broadcast()
		return false
	}
	s.written[app] = b
	if b == nil {
		delete(s.written, app)
	}
	s.idle.Broadcast()
	return true
}

// write carries one change out. old is what the file holds, if known: a record
// that says the same again costs no disk.
func (s *store) write(app string, r *supervisor.Record, old []byte) ([]byte, error) {
	if r == nil {
		if err := os.Remove(s.path(app)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		return nil, nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(old, b) {
		return b, nil
	}
	return b, writeFile(s.path(app), b)
}

// Sync waits until all that was saved is on disk, or cannot be written.
func (s *store) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = nil // of an earlier time
	select {
	case s.wake <- struct{}{}:
	default:
	}
	for (len(s.pending) > 0 || s.busy) && s.problem == nil {
		if s.ended && !s.busy {
			s.mu.Unlock()
			s.writeOne()
			s.mu.Lock()
			continue
		}
		s.idle.Wait()
	}
	return s.problem
}

// Load reads all records. One that cannot be read is set aside with the suffix
// .corrupt and named in problems; the others are not held up by it.
func (s *store) Load() (records []supervisor.Record, problems []string) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, []string{fmt.Sprintf("read state folder: %v", err)}
	}
	for _, f := range files {
		path := filepath.Join(s.dir, f.Name())
		if strings.HasSuffix(f.Name(), ".tmp") {
			_ = os.Remove(path) // a write that never became true
			continue
		}
		if !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		r, err := readRecord(path)
		if err != nil {
			aside := path + ".corrupt"
			_ = os.Rename(path, aside)
			problems = append(problems, fmt.Sprintf("record %s cannot be read (%v); it was set aside as %s and its app is not known any more", path, err, aside))
			continue
		}
		records = append(records, r)
	}
	return records, problems
}

func readRecord(path string) (r supervisor.Record, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	if r.Version > supervisor.RecordVersion {
		return r, fmt.Errorf("version %d was written by a newer gpm; this one knows up to %d", r.Version, supervisor.RecordVersion)
	}
	if r.App.Name == "" {
		return r, errors.New("no app name in it")
	}
	r.App.Complete() // it may be an earlier gpm's
	return r, nil
}

// writeFile replaces a file so that a crash leaves the old one or the new one.
func writeFile(path string, b []byte) error {
	tmp := fmt.Sprintf("%s.%d.tmp", path, time.Now().UnixNano())
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	if d, err := os.Open(filepath.Dir(path)); err == nil { // the rename itself, too
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
