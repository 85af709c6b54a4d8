package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// record keeps an order in a file, and what each socket gets, for a daemon that
// comes after this one was killed. It writes two copies in turn, so that one is
// whole at any instant.
type record struct {
	f   recordFile
	seq uint64
}

type recordFile interface {
	io.ReaderAt
	io.WriterAt
}

const copySize = 16 + 16*maxSlots + 8 // seq, length, sockets with traffic, checksum

// written are the kinds of traffic as they are recorded.
var written = []Traffic{Away, Queue, Serve}

func (r *record) write(o order, traffic map[uint64]Traffic) error {
	if len(o) > maxSlots {
		return fmt.Errorf("record %d listeners: at most %d", len(o), maxSlots)
	}
	seq := r.seq + 1
	b := binary.LittleEndian.AppendUint64(nil, seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(o)))
	for _, s := range o {
		b = binary.LittleEndian.AppendUint64(b, s)
		b = binary.LittleEndian.AppendUint64(b, uint64(max(0, slices.Index(written, traffic[s]))))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(crc32.ChecksumIEEE(b)))
	if _, err := r.f.WriteAt(b, int64(seq%2)*copySize); err != nil {
		return fmt.Errorf("record the order of listeners: %w", err)
	}
	r.seq = seq
	return nil
}

// read finds the later whole copy.
func (r *record) read() (found order, traffic map[uint64]Traffic, err error) {
	r.seq = 0
	for i := range int64(2) {
		if o, t, seq, ok := r.readCopy(i); ok && seq > r.seq {
			found, traffic, r.seq = o, t, seq
		}
	}
	if r.seq == 0 {
		return nil, nil, errors.New("read the order of listeners: the record is damaged")
	}
	return found, traffic, nil
}

func (r *record) readCopy(i int64) (o order, traffic map[uint64]Traffic, seq uint64, ok bool) {
	b := make([]byte, copySize)
	n, err := r.f.ReadAt(b, i*copySize)
	if err != nil && err != io.EOF || n < 24 {
		return nil, nil, 0, false
	}
	word := binary.LittleEndian.Uint64
	seq, count := word(b), word(b[8:])
	if count > maxSlots || n < int(24+16*count) {
		return nil, nil, 0, false
	}
	end := 16 + 16*count
	if word(b[end:]) != uint64(crc32.ChecksumIEEE(b[:end])) {
		return nil, nil, 0, false
	}
	traffic = map[uint64]Traffic{}
	for at := uint64(16); at < end; at += 16 {
		o = append(o, word(b[at:]))
		traffic[word(b[at:])] = written[min(word(b[at+8:]), uint64(len(written)-1))]
	}
	return o, traffic, seq, true
}
