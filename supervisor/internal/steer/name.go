package steer

import (
	"net/url"
	"strings"
)

// namePrefix begins the names of this package's files at the keeper. A name is
// steer/<group>/<part>, where part is "socks" and "slots" (the maps of eBPF) or
// "order" (cBPF).
const namePrefix = "steer/"

// IsName tells whether a file of the keeper is for Restore.
func IsName(name string) bool { return strings.HasPrefix(name, namePrefix) }

// storeName may travel through systemd's fd store, which takes no ':'.
func storeName(group, part string) string {
	return namePrefix + url.QueryEscape(group) + "/" + part
}

func parseName(name string) (group, part string, ok bool) {
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return "", "", false
	}
	group, part, ok = strings.Cut(rest, "/")
	if !ok || part == "" {
		return "", "", false
	}
	group, err := url.QueryUnescape(group)
	return group, part, err == nil
}
