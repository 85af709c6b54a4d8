// Package gpm holds nothing but the test that keeps the house in order.
package gpm

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// room is a folder and what it may import of gpm, each with the reason. A
// folder that is not listed may not exist.
type room struct {
	folder string
	may    map[string]string // import path below gpm/ -> why
	tests  []string          // its tests may import these, too
	never  []string          // of the standard library and others
}

var house = []room{
	{folder: ".", may: nil},
	{folder: "cmd/gpm", may: map[string]string{
		"cmd/gpm/internal/cli":   "a face",
		"cmd/gpm/internal/monit": "handed to the CLI, which draws nothing itself",
		"supervisor/api":         "the client that monit gets",
		"supervisor/daemon":      "the other faces",
	}},
	{folder: "cmd/gpm/internal/cli", may: map[string]string{
		"config":                "reads the user's files before anything is sent",
		"supervisor/api":        "the only way to the daemon",
		"cmd/gpm/internal/term": "how to speak to a person",
	}},
	{folder: "cmd/gpm/internal/monit", may: map[string]string{
		"supervisor/api":        "the only way to the daemon",
		"cmd/gpm/internal/term": "the same words and units as the CLI",
	}, tests: []string{"config"}},
	{folder: "cmd/gpm/internal/term", may: nil},
	{folder: "config", may: nil, never: []string{"net/http", "os/exec"}},
	{folder: "logs", may: nil, never: []string{"net/http", "os/exec"}},
	{folder: "supervisor", may: map[string]string{"config": "what an app is"},
		never: []string{"net", "net/http", "os", "os/exec", "os/signal", "syscall", "golang.org/x/sys/unix", "log/slog"}},
	{folder: "supervisor/api", may: map[string]string{"config": "apps travel to the daemon as they were checked"}},
	{folder: "supervisor/daemon", may: map[string]string{
		"config":                         "checks what comes over the wire, and describes it",
		"logs":                           "the log path",
		"supervisor":                     "the brain",
		"supervisor/api":                 "the wire",
		"supervisor/internal/keeper":     "hand",
		"supervisor/internal/notify":     "hand",
		"supervisor/internal/proc":       "hand",
		"supervisor/internal/probe":      "hand",
		"supervisor/internal/sock":       "hand",
		"supervisor/internal/steer":      "the holder gets one",
		"supervisor/internal/streams":    "hand",
		"supervisor/internal/trampoline": "face",
		"supervisor/internal/trap":       "passes traps from the keeper to the holder",
		"supervisor/internal/usage":      "hand",
		"supervisor/internal/watch":      "hand",
	}},
	{folder: "supervisor/internal/keeper", may: map[string]string{"supervisor/internal/trap": "the filter that its children carry"}, never: []string{"net/http", "os/exec"}},
	{folder: "supervisor/internal/notify"},
	{folder: "supervisor/internal/proc"},
	{folder: "supervisor/internal/aim"},
	{folder: "supervisor/internal/probe", may: map[string]string{
		"config":                  "what a probe is",
		"supervisor/internal/aim": "how to reach one of several",
	}},
	{folder: "supervisor/internal/sock", may: map[string]string{
		"supervisor/internal/aim":     "how to reach one of its listeners",
		"supervisor/internal/steer":   "tells the kernel which listener gets what comes",
		"supervisor/internal/streams": "reads the kernel's list of listeners",
		"supervisor/internal/trap":    "what it judges",
	}},
	{folder: "supervisor/internal/steer", may: map[string]string{"supervisor/internal/aim": "what its programs obey"}},
	{folder: "supervisor/internal/streams"},
	{folder: "supervisor/internal/trampoline"},
	{folder: "supervisor/internal/trap"},
	{folder: "supervisor/internal/usage"},
	{folder: "supervisor/internal/watch"},
	// People copy the example: nothing of gpm in it.
	{folder: "examples/sse-app", may: map[string]string{"examples/sse-app/internal/bus": "what its instances share"},
		tests: []string{"examples/sse-app/ssetest"}},
	{folder: "examples/sse-app/bus"},
	{folder: "examples/sse-app/internal/bus"},
	{folder: "examples/sse-app/ssetest"},
	{folder: "bench", may: map[string]string{"bench/load": "the same load on all peers"}},
	{folder: "bench/app"},
	{folder: "bench/load"},
	{folder: "bench/load/cmd/gpm-load", may: map[string]string{"bench/load": "its command line"}},
	{folder: "e2e", may: map[string]string{"config": "the shape of describe --json", "supervisor/api": "reads gpm list --json", "bench/load": "the ledger"}, tests: []string{"examples/sse-app/ssetest"}},
}

// onlyIn are libraries that one room owns.
var onlyIn = map[string]string{
	"gopkg.in/natefinch/lumberjack.v2": "logs",
	"github.com/fsnotify/fsnotify":     "supervisor/internal/watch",
	"github.com/shirou/gopsutil/v3":    "supervisor/internal/usage",
	"github.com/tailscale/hujson":      "config",
	"github.com/cilium/ebpf":           "supervisor/internal/steer",
	"golang.org/x/net":                 "supervisor/internal/steer",
	"github.com/mdlayher/netlink":      "supervisor/internal/streams",
	"charm.land/bubbletea/v2":          "cmd/gpm/internal/monit",
	"github.com/spf13/cobra":           "cmd/gpm/internal/cli",
}

func TestAllowedImports(t *testing.T) {
	rooms := map[string]room{}
	for _, r := range house {
		rooms[r.folder] = r
	}
	for file, imports := range allImports(t) {
		folder := filepath.ToSlash(filepath.Dir(file))
		if strings.Contains(folder, "testdata") {
			continue
		}
		r, ok := rooms[folder]
		if !ok {
			t.Errorf("%s: folder %q is in no room of the house", file, folder)
			continue
		}
		test := strings.HasSuffix(file, "_test.go")
		for _, imp := range imports {
			own, ours := strings.CutPrefix(imp, "gpm/")
			if ours && r.may[own] == "" && !(test && (own == folder || slices.Contains(r.tests, own))) {
				t.Errorf("%s: %s may not import %s", file, folder, imp)
			}
			if !test && slices.Contains(r.never, imp) {
				t.Errorf("%s: %s may not import %s", file, folder, imp)
			}
			for lib, owner := range onlyIn {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && folder != owner {
					t.Errorf("%s: only %s may import %s", file, owner, lib)
				}
			}
		}
	}
}

func allImports(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		found[path] = []string{}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			found[path] = append(found[path], p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
