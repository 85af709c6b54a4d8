// Package aim is how gpm reaches exactly one of the listeners that share an
// address: a mark on the connection that the programs of steering obey before
// anything else. Both ends of a connection to oneself are on this machine, so
// nobody from outside can bear the mark and get an answer.
package aim

import (
	"net"
	"net/netip"
)

// An Aim marks a connection. The zero value marks nothing: the kernel, or
// steering, chooses the listener.
type Aim struct {
	// Source is the local address of the connection, 127.77.hi.lo: how IPv4
	// connections are marked. All of 127.0.0.0/8 is local on Linux.
	Source netip.Addr
	// Label is the lower part of the flow label of the connection (RFC 6437), the
	// slot, if Labelled: how IPv6 connections are marked, which have no more than
	// one loopback address.
	Label    uint16
	Labelled bool
}

// Marks, as the programs of steering find them in the first packet.
const (
	// SourceNet is the upper half of Source.
	SourceNet = 127<<8 | 77

	// Head is the first word of the IPv6 header without the slot: version, traffic
	// class, upper part of the flow label. A label alone says nothing: the kernel
	// gives random ones to all connections (auto_flowlabels).
	Head     = 6<<28 | class<<20 | label
	HeadMask = 0xfffff000

	class = 19 << 2 // a DSCP for local use (RFC 2474, 6: xxxx11), no ECN
	label = 0x4d000
)

// IPv4 is the aim at a slot, at most 65535, of a group with IPv4 connections.
func IPv4(slot int) Aim {
	return Aim{Source: netip.AddrFrom4([4]byte{SourceNet >> 8, SourceNet & 0xff, byte(slot >> 8), byte(slot)})}
}

// IPv6 is the aim at a slot, at most 4095, of a group without IPv4 connections.
func IPv6(slot int) Aim { return Aim{Label: uint16(slot), Labelled: true} }

// Dialer makes connections that bear the mark, without keep-alive packets. It
// works for addresses of this machine.
func (a Aim) Dialer() net.Dialer {
	d := net.Dialer{KeepAlive: -1}
	if a.Source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Source.Unmap(), 0))
	}
	if a.Labelled {
		d.Control = connectLabelled(label | uint32(a.Label))
	}
	return d
}
