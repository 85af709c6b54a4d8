package supervisor

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// choose turns targets into apps and places: "all", an id, an app's name, a
// namespace, or a /regex/ on names. Every target must match something.
func (b *board) choose(targets []string) ([]choice, error) {
	picked := map[string][]int{} // name -> indices; nil: all
	for _, t := range targets {
		found, err := b.match(t)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, &NotFound{t}
		}
		for name, indices := range found {
			if had, ok := picked[name]; ok && (had == nil || indices == nil) {
				picked[name] = nil
				continue
			}
			picked[name] = append(picked[name], indices...)
		}
	}
	var r []choice
	for _, name := range slices.Sorted(maps.Keys(picked)) {
		e := b.entries[name]
		r = append(r, choice{e.app, e.spec, picked[name]})
	}
	return r, nil
}

func (b *board) match(target string) (map[string][]int, error) {
	found := map[string][]int{}
	if _, ok := b.entries[target]; ok {
		found[target] = nil
		return found, nil
	}
	if id, err := strconv.Atoi(target); err == nil {
		b.byID(id, found)
		return found, nil
	}
	if expr, ok := strings.CutPrefix(target, "/"); ok && len(expr) > 1 && strings.HasSuffix(expr, "/") {
		re, err := regexp.Compile(strings.TrimSuffix(expr, "/"))
		if err != nil {
			return nil, fmt.Errorf("parse target %q: %w", target, err)
		}
		b.where(found, func(e *entry) bool { return re.MatchString(e.spec.Name) })
		return found, nil
	}
	b.where(found, func(e *entry) bool { return target == "all" || e.spec.Namespace == target })
	if name, index, ok := cutIndex(target); ok && len(found) == 0 {
		b.byPlace(name, index, found)
	}
	return found, nil
}

func (b *board) where(found map[string][]int, f func(*entry) bool) {
	for name, e := range b.entries {
		if f(e) {
			found[name] = nil
		}
	}
}

func (b *board) byID(id int, found map[string][]int) {
	for name, e := range b.entries {
		for i, p := range e.places {
			if p.ID == id {
				found[name] = wholeOr(e, i)
			}
		}
	}
}

func (b *board) byPlace(name string, index int, found map[string][]int) {
	if e := b.entries[name]; e != nil {
		if _, ok := e.places[index]; ok {
			found[name] = wholeOr(e, index)
		}
	}
}

// wholeOr: the only instance of an app is the app.
func wholeOr(e *entry, index int) []int {
	if len(e.places) == 1 {
		return nil
	}
	return []int{index}
}

// cutIndex splits "web-2", as lists and logs show an instance.
func cutIndex(s string) (name string, index int, ok bool) {
	i := strings.LastIndexByte(s, '-')
	if i < 1 {
		return "", 0, false
	}
	n, err := strconv.Atoi(s[i+1:])
	return s[:i], n, err == nil && n >= 0
}
