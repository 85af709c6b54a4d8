package config

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	minInterval = 10 * time.Millisecond // between two checks: each starts a connection, or a process
	maxFailures = 1000
	maxHeader   = 8 << 10 // bytes of a path, or of a header's value: more than servers take
)

var probeKinds = []ProbeKind{ProbeHTTP, ProbeTCP, ProbeExec, ProbeSSE}

const probesIntro = "A probe checks one process, also where all instances listen on the same port. `ready` asks before the process gets connections, `health` asks all the time. A probe is one of:\n\n" +
	"- `{\"http\": \"/readyz\"}`, or `\"/readyz\"` for short: a GET is answered with an expected status. Redirects are not followed.\n" +
	"- `{\"tcp\": true}` or `{\"tcp\": 8080}`: a connection is made.\n" +
	"- `{\"exec\": \"./check.sh\"}`: a command line, run by `/bin/sh -c` in `cwd` as the app's user with its environment, ends with 0.\n" +
	"- `{\"sse\": \"/events\"}`: a GET is answered with an event stream, and an event comes.\n\n" +
	"A probe over the network marks its connection (it comes from 127.77.0.0/16, or has a traffic class and a flow label of its own over IPv6) and so reaches exactly one process. Where gpm does not steer (see `gpm doctor`), whoever gets the connection answers: a new process is then probed as soon as it listens, and `health` tells more of the app than of an instance.\n\n"

const expectedProbe = `an object with one of "http", "tcp", "exec", "sse", or a path like "/readyz"`

func probeKeys() []Key {
	ready, health := func(a *App) **Probe { return &a.Ready }, func(a *App) **Probe { return &a.Health }
	return []Key{
		{
			Name: "ready", Group: groupProbes, Type: "path, or object", Otherwise: "none: a process that listens is ready", Origin: FromGPM,
			Doc:    "The probe that tells when a new process may get connections: when it succeeds for the first time. It is tried again until `listen_timeout` is over, which is a failure. With `wait_ready` both must hold.",
			fields: probeFields(ready, false), set: setProbe(ready, false),
		},
		{
			Name: "health", Group: groupProbes, Type: "path, or object", Otherwise: "none", Origin: FromGPM,
			Doc:    "The probe that tells whether a process that was ready still works. When it fails `failures` times in a row, the process is taken out of traffic, then replaced.",
			fields: probeFields(health, true), set: setProbe(health, true),
		},
		{
			Name: "hang_timeout", Group: groupProbes, Type: typeDuration, Default: "30000", Origin: FromGPM,
			Doc: "A process hangs when connections wait for so long, it accepts none of them and sends no data on any other; it is then taken out of traffic and replaced, without a probe. It is looked at once a second. `0` is never.",
			set: wantDuration(0, func(a *App) *Duration { return &a.HangTimeout }),
		},
	}
}

// newProbe is a probe with its defaults.
func newProbe(kind ProbeKind, health bool) *Probe {
	p := &Probe{Kind: kind, Interval: Duration(500 * time.Millisecond), Timeout: Duration(2 * time.Second)}
	if kind == ProbeSSE { // an event may be some seconds away
		p.Timeout = Duration(5 * time.Second)
	}
	if health {
		p.Interval, p.Timeout, p.Failures = Duration(10*time.Second), Duration(5*time.Second), 3
		if kind == ProbeSSE {
			p.Timeout = Duration(10 * time.Second)
		}
	}
	return p
}

// probeFields is the table of a probe: first the kinds, by their names.
func probeFields(at func(*App) **Probe, health bool) []field {
	text := func(get func(*Probe) *string) func(*App) *string { return func(a *App) *string { return get(*at(a)) } }
	duration := func(get func(*Probe) *Duration) func(*App) *Duration {
		return func(a *App) *Duration { return get(*at(a)) }
	}
	path := wantText(`a path like "/readyz"`, pathProblem, text(func(p *Probe) *string { return &p.Path }))
	web := []ProbeKind{ProbeHTTP, ProbeSSE}
	rows := []field{
		{name: "http", typ: "path", doc: "Checks by a GET.", set: path},
		{name: "tcp", typ: "`true`, or port", doc: "Checks by a connection.", set: setTCP(at)},
		{name: "exec", typ: "command line", doc: "Checks by a command.",
			set: wantText("a command line", notEmpty, text(func(p *Probe) *string { return &p.Command }))},
		{name: "sse", typ: "path", doc: "Checks by an event of a stream.", set: path},
		{name: "port", typ: typeNumber, def: "the first that the process listens on", doc: "Where to check.",
			kinds: []ProbeKind{ProbeHTTP, ProbeTCP, ProbeSSE}, set: wantInt(1, 65535, func(a *App) *int { return &(*at(a)).Port })},
		{name: "headers", typ: "object of text", def: "none", doc: "Sent along. `Host` is `localhost` if it is not among them.", kinds: web, set: setHeaders(at)},
		{name: "status", typ: "number, range (`\"200-299\"`), or list", def: "`\"200-399\"`", doc: "Of `http`: what counts as success.",
			kinds: []ProbeKind{ProbeHTTP}, set: setStatus(at)},
		{name: "tls", typ: typeBool, def: "`false`", doc: "The server speaks TLS. Its certificate is not checked: it names the host for the world, not for a process on it.",
			kinds: web, set: wantBool(func(a *App) *bool { return &(*at(a)).TLS })},
		{name: "event", typ: typeText, def: "any", doc: "Of `sse`: the name of the event that has to come.",
			kinds: []ProbeKind{ProbeSSE}, set: wantText("the name of an event", eventProblem, text(func(p *Probe) *string { return &p.Event }))},
		{name: "interval", typ: typeDuration, def: "`500`", doc: "From the end of one check to the next.",
			set: wantDuration(minInterval, duration(func(p *Probe) *Duration { return &p.Interval }))},
		{name: "timeout", typ: typeDuration, def: "`2000`; of `sse` `5000`", doc: "Of one check, all in all.",
			set: wantDuration(time.Millisecond, duration(func(p *Probe) *Duration { return &p.Timeout }))},
		{name: "failures", typ: typeNumber, def: "`3`", doc: "So many in a row, and the process counts as hung.",
			set: wantInt(1, maxFailures, func(a *App) *int { return &(*at(a)).Failures })},
		{name: "delay", typ: typeDuration, def: "`0`", doc: "Before the first check.",
			set: wantDuration(0, duration(func(p *Probe) *Duration { return &p.Delay }))},
	}
	for i := range rows {
		switch row := &rows[i]; {
		case health && row.name == "interval":
			row.def = "`10000`"
		case health && row.name == "timeout":
			row.def = "`5000`; of `sse` `10000`"
		case !health && row.name == "failures":
			row.refused = `a ready probe does not count failures, it is tried until "listen_timeout" is over`
		}
	}
	return rows
}

// setProbe takes a probe as an object, or the path of one by http.
func setProbe(at func(*App) **Probe, health bool) setter {
	rows := probeFields(at, health)
	return func(d *draft, m member) {
		switch {
		case m.value.kind == kindText && strings.HasPrefix(m.value.text, "/"):
			*at(&d.app) = newProbe(ProbeHTTP, health)
			rows[0].set(d, m)
			return
		case m.value.kind != kindObject:
			d.wrong(m, expectedProbe)
			return
		}
		given := d.fields(m, rows)
		kind := d.probeKind(m, given)
		*at(&d.app) = newProbe(kind, health)
		for _, row := range rows {
			v, ok := given[row.name]
			switch {
			case !ok:
			case kind != "" && row.kinds != nil && !slices.Contains(row.kinds, kind):
				d.refuseKey(v, fmt.Sprintf("means nothing to a probe of kind %q", kind), "", "remove it")
			default:
				row.set(d, v)
			}
		}
		if port, twice := given["port"]; twice && given["tcp"].value.kind == kindNumber {
			d.refuseKey(port, fmt.Sprintf("%q names the port already", given["tcp"].name), "", "keep one of them")
		}
	}
}

// probeKind is what the fields say that is to be checked; "" if they say nothing.
func (d *draft) probeKind(m member, given map[string]member) ProbeKind {
	var kind ProbeKind
	for _, k := range probeKinds {
		v, ok := given[string(k)]
		switch {
		case !ok:
		case kind == "":
			kind = k
		default:
			d.refuseKey(v, fmt.Sprintf("%q is there, too", given[string(kind)].name), "", "keep one of them")
		}
	}
	if kind == "" {
		d.refuse(m, "does not say what to check", expectedProbe, "")
	}
	return kind
}

func setTCP(at func(*App) **Probe) setter {
	return func(d *draft, m member) {
		if on, ok := m.value.boolean(); ok && on {
			return
		}
		port, ok := m.value.number()
		if !ok || port < 1 || port > 65535 {
			d.wrong(m, "true, or a port from 1 to 65535")
			return
		}
		(*at(&d.app)).Port = int(port)
	}
}

func setStatus(at func(*App) **Probe) setter {
	const expected = `a status from 200 to 599, a range like "200-299", or a list of these`
	return func(d *draft, m member) {
		items := m.value.items
		if m.value.kind != kindList {
			items = []node{m.value}
		}
		var taken [600]bool // a list of ranges may name each of them a thousand times
		for _, item := range items {
			first, last, ok := statusRange(item)
			if !ok {
				d.wrong(m.with(item), expected)
				continue
			}
			for s := first; s <= last; s++ {
				taken[s] = true
			}
		}
		for s, ok := range taken {
			if ok {
				p := *at(&d.app)
				p.Status = append(p.Status, s)
			}
		}
	}
}

// statusRange is 204, "204" or "200-299" as a range of final statuses.
func statusRange(n node) (first, last int, ok bool) {
	if v, ok := n.number(); ok {
		return int(v), int(v), isStatus(v)
	}
	if n.kind != kindText {
		return 0, 0, false
	}
	from, to, ok := strings.Cut(n.text, "-")
	if !ok {
		to = from
	}
	a, errA := strconv.ParseUint(from, 10, 16)
	b, errB := strconv.ParseUint(to, 10, 16)
	return int(a), int(b), errA == nil && errB == nil && isStatus(int64(a)) && isStatus(int64(b)) && a <= b
}

func isStatus(v int64) bool { return v >= 200 && v <= 599 }

// setHeaders never shows a value: it may be a secret.
func setHeaders(at func(*App) **Probe) setter {
	return func(d *draft, m member) {
		if m.value.kind != kindObject {
			d.refuse(m, "got "+m.value.sort(), `an object of text ({"Host": "example.org"})`, "")
			return
		}
		headers, spelled := map[string]string{}, map[string]string{}
		for _, v := range m.value.members {
			key, lower := member{name: m.name, at: v.at}, strings.ToLower(v.name)
			text, isText := v.value.str()
			switch other, twice := spelled[lower]; {
			case headerNameProblem(v.name) != "":
				d.refuseKey(key, "the header "+excerpt(v.name)+" "+headerNameProblem(v.name), "", "")
			case v.value.kind == kindNull:
			case twice && other != v.name: // the same spelling twice is reported already
				d.refuseKey(key, "the header "+excerpt(v.name)+" is the same as "+excerpt(other), "", "keep one of them")
			case !isText:
				d.refuse(m.with(v.value), "the value of "+excerpt(v.name)+" is "+v.value.sort(), "text", "")
			case headerValueProblem(v.name, text) != "":
				d.refuse(m.with(v.value), "the value of "+excerpt(v.name)+" "+headerValueProblem(v.name, text), "", "")
			default:
				headers[v.name], spelled[lower] = text, v.name
			}
		}
		if len(headers) > 0 {
			(*at(&d.app)).Headers = headers
		}
	}
}

// pathProblem says what is wrong with the path of a GET; "" if nothing is.
func pathProblem(s string) string {
	switch {
	case !strings.HasPrefix(s, "/"):
		return `does not begin with "/"`
	case len(s) > maxHeader:
		return "is too long"
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		return "contains a blank or a control character"
	case strings.Contains(s, "#"):
		return `contains "#"`
	}
	if _, err := url.ParseRequestURI(s); err != nil {
		return `contains a "%" that begins no escape`
	}
	return ""
}

// headerNameProblem knows the characters of a name (RFC 9110, 5.6.2), and the
// headers by which the probe itself says how long the request is and that the
// connection ends.
func headerNameProblem(s string) string {
	token := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}
	switch lower := strings.ToLower(s); {
	case s == "":
		return "has no name"
	case len(s) > 256:
		return "is too long"
	case strings.ContainsFunc(s, func(r rune) bool { return !token(r) }):
		return "is not a name of a header"
	case slices.Contains([]string{"connection", "content-length", "transfer-encoding", "upgrade", "expect", "te", "trailer", "accept-encoding"}, lower):
		return "is set by gpm itself"
	}
	return ""
}

func headerValueProblem(name, s string) string {
	switch {
	case len(s) > maxHeader:
		return "is too long"
	case strings.ContainsFunc(s, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }):
		return "contains a control character"
	case strings.EqualFold(name, "host") && !isHostPort(s): // net/http would send an empty one
		return "is not a host"
	}
	return ""
}

// isHostPort tells whether s can be a Host header; names beyond ASCII are
// written as they are sent ("xn--...").
func isHostPort(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]") == ""
}

func eventProblem(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > 256:
		return "is too long"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "contains a control character"
	}
	return ""
}
