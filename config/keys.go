package config

import (
	"slices"
	"strings"
	"sync"
)

// Origin tells whose key it is.
type Origin string

// The origins of keys.
const (
	FromPM2 Origin = "PM2"
	FromGPM Origin = "gpm"
)

// Key is one row of the table that drives parsing, aliases, defaults, checks,
// flags and docs/config.md.
type Key struct {
	Name    string   // canonical, snake_case
	Aliases []string // every other spelling, the camelCase ones included
	Flag    string   // the flag that sets it; "": "--" and the name with dashes
	Group   string   // heading in the reference
	Type    string   // in words
	Default string   // as one would write it in the file; "": none, see Otherwise
	// Otherwise says in words what holds if there is no fixed default.
	Otherwise string
	Doc       string
	Origin    Origin

	// Refused is set for a PM2 key that gpm does not do: what to do instead.
	// Harmless is then, in words, which values change nothing and are accepted.
	Refused  string
	Harmless string

	fields   []field         // of an object, for the reference
	set      setter          // writes a value into the draft, or reports what is wrong
	harmless func(node) bool // nil: no value is
}

// setter writes the value of m into d, or reports what is wrong with it.
type setter func(d *draft, m member)

// FlagName is the flag that sets k ("--max-restarts").
func (k *Key) FlagName() string {
	if k.Flag != "" {
		return k.Flag
	}
	return "--" + strings.ReplaceAll(k.Name, "_", "-")
}

// index is the table with its look-ups. It is built at its first use: the
// binary also is a keeper, which never reads a config and must not pay for it.
type index struct {
	rows      []Key
	byName    map[string]*Key // every spelling
	spellings []string        // for did-you-mean: of two that are equally near the first is proposed
}

var (
	indexOnce sync.Once
	indexed   index
)

func keyIndex() *index {
	indexOnce.Do(func() {
		indexed.rows = append(appKeys(), refusedKeys()...)
		indexed.byName = map[string]*Key{}
		var aliases []string
		for i := range indexed.rows {
			k := &indexed.rows[i]
			k.Aliases = withCamelCase(k.Name, k.Aliases)
			for _, s := range append([]string{k.Name}, k.Aliases...) {
				indexed.byName[s] = k
			}
			if k.Refused == "" && k.Name != profileKey {
				indexed.spellings = append(indexed.spellings, k.Name)
				aliases = append(aliases, k.Aliases...)
			}
		}
		indexed.spellings = append(indexed.spellings, aliases...)
	})
	return &indexed
}

func table() []Key { return keyIndex().rows }

func spellings() []string { return keyIndex().spellings }

// Keys is the table: the keys of an app, then PM2's that gpm refuses. The
// caller owns the copy.
func Keys() []Key { return slices.Clone(table()) }

// profileKey stands in the table for env_production and its like.
const profileKey = "env_*"

const profilePrefix = "env_"

// findKey is the row for a key as written, and the profile's name if it is an
// env_<name>; nil if there is no such key.
func findKey(written string) (*Key, string) {
	if k := keyIndex().byName[written]; k != nil {
		return k, ""
	}
	if profile, ok := strings.CutPrefix(written, profilePrefix); ok && profile != "" {
		return keyIndex().byName[profileKey], profile
	}
	return nil, ""
}

func withCamelCase(name string, aliases []string) []string {
	all := slices.Clone(aliases)
	for _, s := range append([]string{name}, aliases...) {
		if c := camelCase(s); c != name && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// camelCase is killTimeout for kill_timeout; other names stay as they are.
func camelCase(s string) string {
	words := strings.Split(s, "_")
	for i, w := range words[1:] {
		if w != "" && w != "*" {
			words[i+1] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	if s == profileKey {
		return s
	}
	return strings.Join(words, "")
}
