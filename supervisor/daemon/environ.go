package daemon

import (
	"maps"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gpm/config"
	"gpm/supervisor"
	"gpm/supervisor/internal/keeper"
)

// private are variables that mean something to one process only; an app must
// not inherit them from whoever started it.
var private = []string{
	"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID",
	"NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID", "GPM_TREE",
	"INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID",
}

// environ is the environment of a process: what its starter had, the app's own
// over it, then what gpm tells it. The names are PM2's where apps rely on them;
// of those the common words (name, instances) yield to the app's own.
func environ(l supervisor.Launch, home string, u *account) map[string]string {
	app := l.App
	env := maps.Clone(app.Inherited)
	if env == nil {
		env = map[string]string{}
	}
	for _, k := range private {
		delete(env, k)
	}
	if u != nil {
		env["HOME"], env["USER"], env["LOGNAME"] = u.home, u.name, u.name
	}
	env["PWD"] = app.Cwd
	env["name"], env["namespace"] = app.Name, app.Namespace
	env["instances"], env["exec_mode"] = strconv.Itoa(app.Instances), app.ExecMode+"_mode"
	maps.Copy(env, app.Env)
	if app.Port != 0 {
		env["PORT"] = strconv.Itoa(app.Port)
	}
	env["NODE_APP_INSTANCE"], env["pm_id"] = strconv.Itoa(l.Index), strconv.Itoa(l.ID)
	env["PM2_HOME"], env["GPM_HOME"] = home, home
	env["GPM_APP"], env["GPM_INSTANCE"], env["GPM_GENERATION"] = app.Name, strconv.Itoa(l.Index), strconv.Itoa(l.Gen)
	return env
}

func flatten(env map[string]string) []string {
	r := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		if strings.ContainsAny(k, "=\x00") || strings.Contains(env[k], "\x00") {
			continue // execve cannot take it
		}
		r = append(r, k+"="+env[k])
	}
	return r
}

// speaksIPC tells whether a process gets Node's IPC channel (process.send).
func speaksIPC(app *config.App) bool {
	return !app.Shell && filepath.Base(app.Interpreter) == "node"
}

// account is the user that an app runs as.
type account struct {
	name, home string
	cred       keeper.Credential
}

// accountOf resolves uid and gid; nil: the daemon's own user.
func accountOf(app *config.App) (*account, error) {
	if app.UID == "" && app.GID == "" {
		return nil, nil
	}
	u, err := lookupUser(app.UID)
	if err != nil {
		return nil, err
	}
	a := &account{name: u.Username, home: u.HomeDir}
	uid, gid := u.Uid, u.Gid
	if app.GID != "" {
		if gid, err = lookupGroup(app.GID); err != nil {
			return nil, err
		}
	}
	a.cred.UID, a.cred.GID = number(uid), number(gid)
	if ids, err := u.GroupIds(); err == nil && app.UID != "" {
		for _, id := range ids {
			a.cred.Groups = append(a.cred.Groups, number(id))
		}
	}
	return a, nil
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32) // of the user database: always a number on Linux
	return uint32(n)
}

func lookupUser(name string) (*user.User, error) {
	if name == "" {
		return user.Current()
	}
	if u, err := user.Lookup(name); err == nil {
		return u, nil
	}
	if u, err := user.LookupId(name); err == nil {
		return u, nil
	}
	if _, err := strconv.ParseUint(name, 10, 32); err == nil { // a number without a name
		return &user.User{Uid: name, Gid: name, Username: name, HomeDir: "/"}, nil
	}
	_, err := user.Lookup(name)
	return nil, err
}

func lookupGroup(name string) (string, error) {
	if g, err := user.LookupGroup(name); err == nil {
		return g.Gid, nil
	}
	if _, err := strconv.ParseUint(name, 10, 32); err == nil {
		return name, nil
	}
	_, err := user.LookupGroup(name)
	return "", err
}
