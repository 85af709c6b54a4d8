package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	chunk     = 256     // entries read at a time
	chunkSize = 1 << 20 // bytes of them, but for the last one
)

// page is what one read of a log found.
type page struct {
	entries []Entry
	gap     bool   // before the first of them some are lost
	pos     uint64 // the position after them
	last    uint64 // number of the newest entry
}

// shared reads as read does, once for all who ask for the same at the same time,
// and only a few at a time: when ten thousand logs are read again, because the
// bus was away, those who publish must not stand in that queue.
func (b *Bus) shared(ctx context.Context, log, after string, subscription int) (page, error) {
	id := fmt.Sprint(subscription, " ", after, " ", log)
	read := b.reads.DoChan(id, func() (any, error) { // ends within patience
		ctx, cancel := context.WithTimeout(b.ctx, b.o.patience)
		defer cancel()
		select {
		case b.readers <- struct{}{}:
			defer func() { <-b.readers }()
		case <-ctx.Done():
			return page{}, ErrDown
		}
		p, err := b.read(ctx, log, after, chunk)
		if ctx.Err() != nil {
			err = ErrDown
		}
		return p, err
	})
	select {
	case r := <-read:
		p, _ := r.Val.(page)
		return p, r.Err
	case <-ctx.Done():
		return page{}, ctx.Err()
	}
}

// read reads at most count entries after a position.
func (b *Bus) read(ctx context.Context, log, after string, count int) (page, error) {
	said, err := b.call(ctx, readScript, []string{key(log, "log"), key(log, "meta")}, after, count, chunkSize, ms(max(memory, b.o.Keep)))
	if err != nil {
		return page{}, err
	}
	a, ok := said.([]any)
	if !ok || len(a) != 4 {
		return page{}, fmt.Errorf("%w: it said %v", ErrDown, said)
	}
	last, err1 := strconv.ParseUint(fmt.Sprint(a[1]), 10, 64)
	from, err2 := strconv.ParseUint(fmt.Sprint(a[2]), 10, 64)
	found, err3 := entriesOf(a[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return page{}, fmt.Errorf("%w: %v", ErrDown, err)
	}
	_, asked := strconv.ParseUint(after, 10, 64)
	numbered := asked == nil
	if numbered && from > last { // a position that this bus has not reached: it has lost its memory
		p, err := b.read(ctx, log, "start", count)
		p.gap = true
		return p, err
	}
	p := judge(found, from, last, numbered || after == "unseen")
	p.gap = p.gap || numbered && a[0] == int64(1)
	return p, nil
}

// judge finds what is missing between from and last. Only a hole before the first
// entry is told; at a later one the page ends, and the next one begins with it.
func judge(found []Entry, from, last uint64, strict bool) page {
	p := page{pos: from, last: last}
	for i, e := range found {
		n, _ := number(e.Cursor)
		if n != p.pos+1 {
			if i > 0 {
				return p
			}
			p.gap = strict
		}
		p.entries, p.pos = append(p.entries, e), n
	}
	if len(found) == 0 && from < last {
		p.pos, p.gap = last, strict
	}
	return p
}

// entriesOf reads what XRANGE answers: [[id, [e, text]], ...].
func entriesOf(said any) ([]Entry, error) {
	list, ok := said.([]any)
	if !ok {
		return nil, fmt.Errorf("it said %v", said)
	}
	entries := make([]Entry, 0, len(list))
	for _, item := range list {
		pair, _ := item.([]any)
		if len(pair) != 2 {
			return nil, fmt.Errorf("it said %v", item)
		}
		fields, _ := pair[1].([]any)
		if len(fields) != 2 {
			return nil, fmt.Errorf("it said %v", item)
		}
		id, _ := pair[0].(string)
		digits, _, _ := strings.Cut(id, "-")
		n, err := strconv.ParseUint(digits, 10, 64)
		text, _ := fields[1].(string)
		_, e, err2 := unpack(fmt.Sprint(n, " ", text))
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}
