package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gpm/config"
	"gpm/supervisor"
	"gpm/supervisor/api"
)

// saved is dump.json: what gpm save writes and gpm resurrect reads.
type saved struct {
	Version int        `json:"version"`
	Apps    []savedApp `json:"apps"`
}

type savedApp struct {
	App     config.App `json:"app"`
	Running bool       `json:"running"`
}

func (d *daemon) dumpPath() string { return filepath.Join(d.home, "dump.json") }

// dump writes the list; the one before it stays as dump.json.bak.
func (d *daemon) dump() (path string, n int, err error) {
	s := saved{Version: 1, Apps: []savedApp{}}
	for _, spec := range d.brain.Specs() {
		s.Apps = append(s.Apps, savedApp{spec.App, spec.Wanted})
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return "", 0, fmt.Errorf("encode %s: %w", d.dumpPath(), err)
	}
	if old, err := os.ReadFile(d.dumpPath()); err == nil {
		if err := writeFile(d.dumpPath()+".bak", old); err != nil {
			return "", 0, fmt.Errorf("keep the last dump: %w", err)
		}
	}
	if err := writeFile(d.dumpPath(), b); err != nil {
		return "", 0, fmt.Errorf("write dump: %w", err)
	}
	d.remember(s)
	return d.dumpPath(), len(s.Apps), nil
}

// undump reads dump.json, or its predecessor if it is damaged. Nothing is
// deleted.
func (d *daemon) undump() (saved, error) {
	var errs []error
	for _, path := range []string{d.dumpPath(), d.dumpPath() + ".bak"} {
		var s saved
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err == nil && s.Version > 1 {
			err = fmt.Errorf("version %d was written by a newer gpm", s.Version)
		}
		if err == nil {
			if len(errs) > 0 {
				d.warn(fmt.Sprintf("%v; %s was used instead", errs[0], path))
			}
			return s, nil
		}
		errs = append(errs, fmt.Errorf("read %s: %w", path, err))
	}
	if errors.Is(errs[0], os.ErrNotExist) {
		return saved{}, &api.Error{Kind: api.KindNotFound, Message: "nothing was saved: " + d.dumpPath() + " does not exist", Hint: "gpm save writes it"}
	}
	return saved{}, &api.Error{Kind: api.KindFailed, Message: errors.Join(errs...).Error(), Hint: "mend or remove the file"}
}

// revive brings back the saved apps that are not here. Those that were stopped
// come back stopped.
func (d *daemon) revive(ctx context.Context) ([]supervisor.Outcome, error) {
	here := map[string]bool{}
	for _, st := range d.brain.List() {
		here[st.App.Name] = true
	}
	s, err := d.undump()
	var e *api.Error
	if errors.As(err, &e) && e.Kind == api.KindNotFound && len(here) > 0 {
		return nil, nil // the records have brought everything back already
	}
	if err != nil {
		return nil, err
	}
	var start []config.App
	var rest []config.App
	for _, a := range s.Apps {
		a.App.Complete() // it may be an earlier gpm's
		if err := config.Check(&a.App); err != nil {
			return nil, &api.Error{Kind: api.KindInvalid, Message: fmt.Sprintf("%s: %v", d.dumpPath(), err)}
		}
		switch {
		case here[a.App.Name]:
		case a.Running:
			start = append(start, a.App)
		default:
			rest = append(rest, a.App)
		}
	}
	d.brain.Register(rest)
	return d.brain.Start(ctx, start, false), nil
}

// remember keeps what was saved, to tell whether the list differs from it.
func (d *daemon) remember(s saved) {
	m := map[string]int{}
	for _, a := range s.Apps {
		m[a.App.Name] = a.App.Instances
	}
	d.savedApps.Store(&m)
}

// unsaved tells whether gpm resurrect would bring back something else than
// what is here; only if the user saves at all.
func (d *daemon) unsaved() bool {
	m := d.savedApps.Load()
	if m == nil {
		return false
	}
	now := map[string]int{}
	for _, spec := range d.brain.Specs() {
		now[spec.App.Name] = spec.App.Instances
	}
	if len(now) != len(*m) {
		return true
	}
	for k, n := range now {
		if (*m)[k] != n {
			return true
		}
	}
	return false
}
