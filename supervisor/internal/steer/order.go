package steer

import "slices"

// order is the kernel's array of the listening sockets of one reuseport group,
// by inode; a classic program answers with an index into it. This file is the
// only place that knows how it moves (net/core/sock_reuseport.c): a socket that
// begins to listen is appended, and when one is closed the last takes its
// index. Values are never changed, only replaced.
type order []uint64

// index is where a socket is, -1 if it is not in the group.
func (o order) index(socket uint64) int { return slices.Index(o, socket) }

// listened is the order after a socket has begun to listen (reuseport_add_sock).
func (o order) listened(socket uint64) order {
	if o.index(socket) >= 0 {
		return o
	}
	return append(slices.Clone(o), socket)
}

// closed is the order after the last copy of a socket was closed
// (__reuseport_detach_sock).
func (o order) closed(socket uint64) order {
	i := o.index(socket)
	if i < 0 {
		return o
	}
	n, last := slices.Clone(o), len(o)-1
	n[i] = n[last]
	return n[:last]
}

// maxUnseen is how many changes of an order are explained; the histories of n
// changes are n! many.
const maxUnseen = 4

// after is the order now that the group consists of live, with changes in
// between that nobody saw. It is false if they can have led to more than one
// order: two sockets closed while a third stays, for one.
func (o order) after(live []uint64) (order, bool) {
	if len(live) <= 1 {
		return slices.Clone(live), true
	}
	var changes []func(order) order
	for _, s := range o {
		if !slices.Contains(live, s) {
			changes = append(changes, func(o order) order { return o.closed(s) })
		}
	}
	for _, s := range live {
		if o.index(s) < 0 {
			changes = append(changes, func(o order) order { return o.listened(s) })
		}
	}
	if len(changes) > maxUnseen {
		return nil, false
	}
	return o.only(changes)
}

// only is the order that every sequence of the changes leads to, if there is one.
func (o order) only(changes []func(order) order) (order, bool) {
	if len(changes) == 0 {
		return o, true
	}
	var found order
	for i, change := range changes {
		rest := slices.Delete(slices.Clone(changes), i, i+1)
		end, ok := change(o).only(rest)
		if !ok || (i > 0 && !slices.Equal(end, found)) {
			return nil, false
		}
		found = end
	}
	return found, true
}
