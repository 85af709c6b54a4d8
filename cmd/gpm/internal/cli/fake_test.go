package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gpm/config"
	"gpm/supervisor/api"
)

// fake is a daemon that starts nothing: its processes are numbers. What would
// become of an app it reads in the app's script: one that says "exit 1" ends so,
// one that says "takes long" is half replaced by a reload until that is aborted,
// and each "stream" is one, which ends with a look at it once it is drained. An
// app that depends on one which is not online waits.
type fake struct {
	home string
	end  chan struct{}
	over sync.Once

	mu    sync.Mutex
	pid   int
	apps  map[string]config.App
	list  []api.Instance
	next  int
	procs int

	rolling *api.Event    // of the reload that takes long
	aborted chan struct{} // ends it
}

// fakeKeeper is "gpm keeper" for tests: the lock, the socket, ready, serve.
func fakeKeeper(home string) int {
	time.AfterFunc(5*time.Minute, func() { os.Exit(3) }) // a test that was killed leaves nothing for long
	if why, err := os.ReadFile(filepath.Join(home, "broken")); err == nil {
		fmt.Fprintf(os.Stderr, "error: %s", why)
		return 1
	}
	lock, err := os.OpenFile(filepath.Join(home, "gpm.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return 75
	}
	path := filepath.Join(home, api.SocketName)
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	f := newFake(home)
	os.Stderr.Close()
	s := &http.Server{Handler: f}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	<-f.end
	s.Close()
	<-done
	return 0
}

func newFake(home string) *fake {
	return &fake{home: home, pid: os.Getpid(), apps: map[string]config.App{}, end: make(chan struct{})}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(api.ProtocolHeader, strconv.Itoa(api.Protocol))
	f.mu.Lock()
	defer f.mu.Unlock()
	name := ""
	for _, route := range api.Routes {
		if r.Method == route.Method && r.URL.Path == route.Path {
			name = route.Name
		}
	}
	answer, err := f.answer(name, w, r)
	status := http.StatusOK
	if err != nil {
		var e *api.Error
		if !errors.As(err, &e) {
			e = &api.Error{Kind: api.KindInternal, Message: err.Error()}
		}
		status = e.HTTPStatus()
		answer = api.ErrorBody{Error: e}
	}
	if answer == nil {
		return
	}
	data, _ := json.Marshal(answer)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	w.Write(data)
	if name == api.RouteKill { // the last word is on its way, however late its reader is
		http.NewResponseController(w).Flush()
		f.over.Do(func() { close(f.end) })
	}
}

func (f *fake) answer(name string, w http.ResponseWriter, r *http.Request) (any, error) {
	switch name {
	case api.RoutePing:
		return f.daemon(), nil
	case api.RouteDoctor:
		return []api.Check{{Name: "held listeners", State: "ok", Detail: "seccomp notification"},
			{Name: "steering", State: "limited", Detail: "no CAP_BPF", Fallback: "the kernel's hash"}}, nil
	case api.RouteList:
		found, err := f.find(r.URL.Query()["target"])
		for n := range f.list {
			if i := &f.list[n]; i.Traffic == api.Away && i.Streams > 0 {
				i.Streams--
			}
		}
		return api.List{Instances: found, Daemon: f.daemon(), Host: api.Host{MemoryUsed: 1 << 30, MemoryTotal: 4 << 30}}, err
	case api.RouteDescribe:
		return f.describe(r)
	case api.RouteLogs:
		return f.logs(w, r)
	case api.RouteEvents:
		f.events(w, r)
		return nil, nil
	case api.RouteStart:
		var req api.StartRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			return nil, err
		}
		return f.start(req), nil
	case api.RouteSave:
		path := filepath.Join(f.home, "dump.json")
		data, err := json.Marshal(f.apps)
		if err != nil {
			return nil, err
		}
		return api.SaveResult{Path: path, Apps: len(f.apps)}, os.WriteFile(path, data, 0o600)
	case api.RouteResurrect:
		return f.resurrect()
	case api.RouteUpdate:
		f.pid++
		return struct{}{}, nil
	case api.RouteKill:
		return f.each([]string{"all"}, func(i *api.Instance) { f.halt(i) })
	}
	return f.act(name, r)
}

func (f *fake) act(name string, r *http.Request) (any, error) {
	var req api.ActRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, err
	}
	switch name {
	case api.RouteStop:
		res, err := f.each(req.Targets, f.halt)
		for n := range res.Instances {
			res.Instances[n].UsedBy = f.usersOf(res.Instances[n].Name)
		}
		return res, err
	case api.RouteReload:
		return f.reload(req)
	case api.RouteDrain:
		return f.each(req.Targets, func(i *api.Instance) {
			i.Traffic = api.Away
			if req.Undo {
				i.Traffic = api.Serving
			}
		})
	case api.RouteAbort:
		return f.abort(req)
	case api.RouteRestart:
		return f.each(req.Targets, func(i *api.Instance) { i.Restarts++; f.run(i) })
	case api.RouteReset:
		return f.each(req.Targets, func(i *api.Instance) { i.Restarts = 0 })
	case api.RouteDelete:
		res, err := f.each(req.Targets, f.halt)
		for _, o := range res.Instances {
			f.list = slices.DeleteFunc(f.list, func(i api.Instance) bool { return i.ID == o.ID })
			delete(f.apps, o.Name)
		}
		return res, err
	case api.RouteScale:
		return f.scale(req)
	case api.RouteFlush:
		found, err := f.find(req.Targets)
		var files []string
		for _, i := range found {
			files = append(files, i.OutFile, i.ErrorFile)
		}
		return api.FlushResult{Files: files}, err
	}
	return nil, &api.Error{Kind: api.KindNotFound, Message: "no route " + r.URL.Path}
}

func (f *fake) daemon() api.Daemon {
	return api.Daemon{Version: api.Version, Protocol: api.Protocol, PID: f.pid, Started: time.Now(), Home: f.home}
}

// find is the instances that targets mean; without targets all.
func (f *fake) find(targets []string) ([]api.Instance, error) {
	found := []api.Instance{}
	for _, t := range targets {
		n := 0
		for _, i := range f.list {
			if matches(t, i) {
				n++
				if !slices.ContainsFunc(found, func(other api.Instance) bool { return other.ID == i.ID }) {
					found = append(found, i)
				}
			}
		}
		if n == 0 {
			return nil, &api.Error{Kind: api.KindNotFound, Message: fmt.Sprintf("find %q: no such app", t), Hint: "gpm list"}
		}
	}
	if len(targets) == 0 {
		found = append(found, f.list...)
	}
	return found, nil
}

func matches(target string, i api.Instance) bool {
	if isRegex(target) {
		ok, err := regexp.MatchString(strings.Trim(target, "/"), i.Name)
		return err == nil && ok
	}
	return target == "all" || target == title(i.Name, i.Instance) || target == i.Name || target == i.Namespace || target == strconv.Itoa(i.ID)
}

func (f *fake) each(targets []string, do func(*api.Instance)) (api.Result, error) {
	found, err := f.find(targets)
	if err != nil && !slices.Contains(targets, "all") {
		return api.Result{}, err
	}
	res := api.Result{}
	for n := range f.list {
		i := &f.list[n]
		if slices.ContainsFunc(found, func(other api.Instance) bool { return other.ID == i.ID }) {
			do(i)
			res.Instances = append(res.Instances, f.outcome(*i))
		}
	}
	return res, nil
}

func (f *fake) outcome(i api.Instance) api.Outcome {
	o := api.Outcome{ID: i.ID, Name: i.Name, Instance: i.Instance, Status: i.Status, PID: i.PID, OK: i.LastExit == nil && i.Status != api.Pending}
	if !o.OK {
		o.Reason, o.Tail = i.Reason, f.lines(i)
	}
	return o
}

// reload replaces at once, or one instance and then no other.
func (f *fake) reload(req api.ActRequest) (api.Result, error) {
	found, err := f.find(req.Targets)
	if err != nil || !strings.Contains(f.script(found[0].Name), "takes long") {
		return f.each(req.Targets, func(i *api.Instance) { i.Restarts++; f.run(i) })
	}
	f.rolling = &api.Event{Kind: "rollout", App: found[0].Name, ID: -1, Instance: -1,
		Progress: &api.Progress{Ready: 1, Total: len(found), Draining: 1, Streams: 37, Waiting: "pause 10s"}}
	ended := make(chan struct{})
	f.aborted = ended
	f.mu.Unlock()
	<-ended
	f.mu.Lock()
	f.rolling = nil
	return api.Result{}, &api.Error{Kind: api.KindFailed, Message: "aborted"}
}

func (f *fake) abort(req api.ActRequest) (api.Result, error) {
	if f.rolling == nil {
		return api.Result{}, nil
	}
	res, err := f.each(req.Targets, func(*api.Instance) {})
	for n := range res.Instances {
		o := &res.Instances[n]
		o.Runs = api.OldVersion
		if n == 0 {
			o.Runs = api.NewVersion
		}
		if strings.Contains(f.script(o.Name), "never ends") {
			f.mu.Unlock()
			<-f.end
			f.mu.Lock()
		}
	}
	close(f.aborted)
	return res, err
}

// events tells again and again how far the reload is.
func (f *fake) events(w http.ResponseWriter, r *http.Request) {
	api.WriteEvent(w, api.StreamSnapshot, api.List{})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for r.Context().Err() == nil {
		if f.rolling != nil {
			api.WriteEvent(w, api.StreamEvent, f.rolling)
		}
		http.NewResponseController(w).Flush()
		f.mu.Unlock() // others are served while this one waits
		select {
		case <-tick.C:
		case <-r.Context().Done():
		}
		f.mu.Lock()
	}
}

func (f *fake) halt(i *api.Instance) { i.Status, i.PID, i.Reason, i.NextTry = api.Stopped, 0, "", nil }

// usersOf is the apps that are online and depend on one.
func (f *fake) usersOf(name string) (users []string) {
	for _, i := range f.list {
		if i.Status == api.Online && slices.Contains(i.DependsOn, name) {
			users = append(users, i.Name)
		}
	}
	return users
}

// online tells whether all instances of an app are.
func (f *fake) online(name string) bool {
	found, err := f.find([]string{name})
	return err == nil && !slices.ContainsFunc(found, func(i api.Instance) bool { return i.Status != api.Online })
}

func (f *fake) run(i *api.Instance) {
	for _, name := range i.DependsOn {
		if !f.online(name) {
			f.halt(i)
			i.Status, i.Reason = api.Pending, "waits for "+name+", which is errored; gpm start "+name+" lets it go on"
			return
		}
	}
	i.Status, i.Started, i.Reason = api.Online, time.Now(), ""
	f.procs++
	i.PID, i.Generation, i.Memory, i.Traffic = 20000+f.procs, i.Generation+1, 51<<20, api.Serving
	i.Streams = strings.Count(f.script(i.Name), "stream")
	if strings.Contains(f.script(i.Name), "exit 1") {
		f.halt(i)
		i.Status, i.Reason = api.Errored, "exited with code 1"
		i.LastExit = &api.Exit{At: time.Now(), Code: 1, Reason: i.Reason}
		if !f.apps[i.Name].Autorestart {
			i.Status, i.Reason = api.Stopped, i.Reason+", autorestart is off"
		}
	}
}

func (f *fake) script(app string) string {
	text, _ := os.ReadFile(f.apps[app].Script)
	return string(text)
}

// lines is what the app would have written: the arguments of its echoes.
func (f *fake) lines(i api.Instance) []api.LogLine {
	var all []api.LogLine
	for line := range strings.SplitSeq(f.script(i.Name), "\n") {
		text, ok := strings.CutPrefix(line, "echo ")
		if !ok {
			continue
		}
		stream := "out"
		if t, err := strings.CutSuffix(text, " >&2"); err {
			text, stream = t, "err"
		}
		all = append(all, api.LogLine{ID: i.ID, Name: i.Name, Instance: i.Instance, Stream: stream, Text: text})
	}
	return all
}

func (f *fake) start(req api.StartRequest) api.Result {
	res := api.Result{}
	for _, need := range req.Needs {
		if f.online(need.Name) {
			continue
		}
		more := f.start(api.StartRequest{Apps: []config.App{need}})
		for _, o := range more.Instances {
			o.NeededBy = req.Apps[0].Name
			res.Instances = append(res.Instances, o)
		}
	}
	for _, a := range req.Apps {
		old, err := f.find([]string{a.Name})
		f.apps[a.Name] = a
		if err == nil {
			more, _ := f.each([]string{a.Name}, func(i *api.Instance) { i.Restarts++; f.run(i) })
			res.Instances = append(res.Instances, more.Instances...)
		}
		for n := len(old); n < a.Instances; n++ {
			res.Instances = append(res.Instances, f.outcome(f.add(a, n)))
		}
	}
	return res
}

func (f *fake) add(a config.App, n int) api.Instance {
	if len(f.list) == 0 {
		f.next = 0
	}
	i := api.Instance{ID: f.next, Name: a.Name, Namespace: a.Namespace, Instance: n, Mode: a.ExecMode, User: "me",
		Created: time.Now(), Hold: "held", OutFile: a.OutFile, ErrorFile: a.ErrorFile, Watching: len(a.Watch) > 0, DependsOn: a.DependsOn}
	f.next++
	f.run(&i)
	f.list = append(f.list, i)
	return i
}

func (f *fake) scale(req api.ActRequest) (api.Result, error) {
	found, err := f.find(req.Targets)
	if err != nil {
		return api.Result{}, err
	}
	want, err := strconv.Atoi(req.Instances)
	if err != nil {
		return api.Result{}, err
	}
	if strings.ContainsAny(req.Instances, "+-") {
		want += len(found)
	}
	a := f.apps[found[0].Name]
	res := api.Result{}
	for n := len(found); n < want; n++ {
		res.Instances = append(res.Instances, f.outcome(f.add(a, n)))
	}
	for n := len(found) - 1; n >= want && n >= 0; n-- {
		id := found[n].ID
		f.list = slices.DeleteFunc(f.list, func(i api.Instance) bool { return i.ID == id })
		f.halt(&found[n])
		res.Instances = append(res.Instances, f.outcome(found[n]))
	}
	return res, nil
}

func (f *fake) resurrect() (api.Result, error) {
	data, err := os.ReadFile(filepath.Join(f.home, "dump.json"))
	if err != nil {
		return api.Result{}, &api.Error{Kind: api.KindNotFound, Message: "nothing was saved", Hint: "gpm save"}
	}
	var saved map[string]config.App
	if err := json.Unmarshal(data, &saved); err != nil {
		return api.Result{}, err
	}
	var req api.StartRequest
	for name, a := range saved {
		if _, has := f.apps[name]; !has {
			req.Apps = append(req.Apps, a)
		}
	}
	return f.start(req), nil
}

func (f *fake) describe(r *http.Request) (any, error) {
	found, err := f.find(r.URL.Query()["target"])
	all := []api.Description{}
	for _, i := range found {
		a := f.apps[i.Name]
		if r.URL.Query().Get("env") == "" {
			hidden := map[string]string{}
			for k := range a.Env {
				hidden[k] = "[redacted]"
			}
			a.Env = hidden
		}
		d := api.Description{Instance: i, App: a, Tree: []api.Proc{{PID: i.PID, Parent: 1, Command: a.Script}}}
		if i.LastExit != nil {
			d.Exits = []api.Exit{*i.LastExit}
			d.Exits[0].Tail = f.lines(i)
		}
		all = append(all, d)
	}
	return all, err
}

// logs writes the saved lines, then, to a follower, one more from each.
func (f *fake) logs(w http.ResponseWriter, r *http.Request) (any, error) {
	q := r.URL.Query()
	found, err := f.find(q["target"])
	if err != nil {
		return nil, err
	}
	most, err := strconv.Atoi(q.Get("lines"))
	if err != nil {
		return nil, err
	}
	for _, i := range found {
		lines := slices.DeleteFunc(f.lines(i), func(l api.LogLine) bool { return q.Get(l.Stream) == "" })
		for _, l := range lines[max(0, len(lines)-most):] {
			api.WriteEvent(w, api.StreamLog, l)
		}
	}
	if q.Get("follow") == "" {
		return nil, nil
	}
	for _, i := range found {
		api.WriteEvent(w, api.StreamLog, api.LogLine{ID: -1, Instance: -1, Skipped: 3})
		api.WriteEvent(w, api.StreamLog, api.LogLine{ID: i.ID, Name: i.Name, Stream: "out", At: time.Now(), Text: "live"})
	}
	http.NewResponseController(w).Flush()
	f.mu.Unlock() // others are served while this one follows
	<-r.Context().Done()
	f.mu.Lock()
	return nil, nil
}
