package daemon

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"gpm/config"
)

// place names one process of one instance: app, index, generation. As text it
// is the keeper's tag and a part of the names of its descriptors.
type place struct {
	App   string
	Index int
	Gen   int
}

func (p place) String() string {
	return fmt.Sprintf("%s/%d/%d", url.PathEscape(p.App), p.Index, p.Gen)
}

func parsePlace(tag string) (p place, err error) {
	part := strings.Split(tag, "/")
	if len(part) != 3 {
		return p, fmt.Errorf("parse tag %q: three parts are expected", tag)
	}
	if p.App, err = url.PathUnescape(part[0]); err != nil {
		return p, fmt.Errorf("parse tag %q: %w", tag, err)
	}
	if p.Index, err = strconv.Atoi(part[1]); err != nil {
		return p, fmt.Errorf("parse tag %q: %w", tag, err)
	}
	if p.Gen, err = strconv.Atoi(part[2]); err != nil {
		return p, fmt.Errorf("parse tag %q: %w", tag, err)
	}
	return p, nil
}

// The names under which the keeper holds what a process needs to outlive the
// daemon: "log/<place>/out", "log/<place>/out.journal", ..., "ipc/<place>".
const (
	logPrefix  = "log/"
	ipcPrefix  = "ipc/"
	toldPrefix = "told/" // nothing is in it: that it is there says that the process was told to end
	journal    = ".journal"
)

func (p place) log(stream string) string { return logPrefix + p.String() + "/" + stream }
func (p place) told() string             { return toldPrefix + p.String() }
func (p place) ipc() string              { return ipcPrefix + p.String() }

// logPaths are the files an instance writes, with PM2's suffix: "-<id>" before
// the extension unless the app merges its logs.
func logPaths(app *config.App, id int) (out, errs string) {
	return logPath(app, app.OutFile, id), logPath(app, app.ErrorFile, id)
}

func logPath(app *config.App, path string, id int) string {
	if path == "" || app.MergeLogs {
		return path
	}
	ext := filepath.Ext(path)
	return fmt.Sprintf("%s-%s%s", strings.TrimSuffix(path, ext), suffix(id), ext)
}
