package sock

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// namePrefix begins the names of held listeners among the keeper's files.
const namePrefix = "listen/"

// storeName is the keeper's name of a listener. It must bring back the place
// after a restart of the daemon, whatever the app is called, and it may travel
// through systemd's fd store, which takes no ':' (sd_notify(3), FDNAME).
func storeName(p place, e *entry) string {
	flags := "-"
	if e.key.only6 {
		flags += "6"
	}
	if e.shared {
		flags += "r"
	}
	if e.opened {
		flags += "o"
	}
	return namePrefix + strings.Join([]string{
		url.QueryEscape(p.app), strconv.Itoa(p.index), url.QueryEscape(e.key.addr.String()), flags,
		strconv.FormatUint(e.cookie, 10), // a reload has two on one address
	}, "/")
}

// IsName tells whether a file of the keeper is a held listener, for Restore.
func IsName(name string) bool { return strings.HasPrefix(name, namePrefix) }

// named is what a name tells of a listener. What the socket itself knows (its
// cookie, IPV6_V6ONLY) is asked there.
type named struct {
	place          place
	addr           netip.AddrPort
	shared, opened bool
}

// parseName undoes storeName. Names of an older gpm have no cookie.
func parseName(name string) (n named, err error) {
	bad := func(why error) (named, error) {
		return named{}, fmt.Errorf("parse listener name %q: %w", name, why)
	}
	rest, ok := strings.CutPrefix(name, namePrefix)
	f := strings.Split(rest, "/")
	if !ok || len(f) != 4 && len(f) != 5 || !strings.HasPrefix(f[3], "-") {
		return bad(fmt.Errorf("not of the form %sapp/index/address/-flags/cookie", namePrefix))
	}
	if n.place.app, err = url.QueryUnescape(f[0]); err != nil {
		return bad(err)
	}
	if n.place.index, err = strconv.Atoi(f[1]); err != nil {
		return bad(err)
	}
	text, err := url.QueryUnescape(f[2])
	if err != nil {
		return bad(err)
	}
	if n.addr, err = netip.ParseAddrPort(text); err != nil {
		return bad(err)
	}
	n.shared, n.opened = strings.Contains(f[3], "r"), strings.Contains(f[3], "o")
	return n, nil
}
