package daemon

import (
	"testing"
	"time"

	"gpm/supervisor"
	"gpm/supervisor/internal/streams"
)

func newPerson(facts *[]supervisor.Fact) person {
	at := place{"web", 0, 1}
	return person{process: &process{report: func(f supervisor.Fact) { *facts = append(*facts, f) }}, at: at, key: at.String(), patience: suspicious}
}

// A count of nobody is believed at once if every connection has an owner, else
// when it is seen twice.
func TestCertain(t *testing.T) {
	c := newCensus(nil, nil, nil)
	p := newPerson(new([]supervisor.Fact))
	for _, step := range []struct {
		live, unowned int
		blind         bool
		want          bool
		wantLive      int
	}{
		{live: 3, want: true, wantLive: 3},
		{unowned: 0, want: true},
		{unowned: 1, want: false},
		{unowned: 1, want: true},
		{live: 1, unowned: 1, want: true, wantLive: 1}, // it was only on its way
		{unowned: 1, want: false},
		{unowned: 2, blind: true, want: true, wantLive: 2}, // they may all be its own
	} {
		n := supervisor.Count{Live: step.live}
		if got := c.certain(p, &n, step.blind, step.unowned); got != step.want || n.Live != step.wantLive {
			t.Errorf("%+v: %v, live %d", step, got, n.Live)
		}
	}
}

// A queue that does not move is told of, with how long; as soon as it moves
// again that is told, too, once.
func TestSuspect(t *testing.T) {
	c := newCensus(nil, nil, nil)
	var facts []supervisor.Fact
	p := newPerson(&facts)
	began := time.Now()
	look := func(after time.Duration, queue int, n streams.Count) {
		c.suspect(p, n, supervisor.Count{Queue: queue}, began.Add(after))
	}
	look(0, 3, streams.Count{})
	look(time.Second, 3, streams.Count{New: 1}) // it accepts, and more come
	look(2*time.Second, 3, streams.Count{})
	look(4*time.Second, 4, streams.Count{Sent: began.Add(time.Second)}) // before that
	if len(facts) != 0 {
		t.Fatalf("told too early: %+v", facts)
	}
	look(10*time.Second, 4, streams.Count{})
	look(11*time.Second, 4, streams.Count{Sent: began.Add(11 * time.Second)}) // it serves others meanwhile
	look(12*time.Second, 0, streams.Count{})
	if len(facts) != 2 || facts[0].Stalled != 8*time.Second || facts[0].Count.Queue != 4 || facts[1].Stalled != 0 || facts[1].Kind != supervisor.Stalled {
		t.Errorf("%+v", facts)
	}
}

func TestRelay(t *testing.T) {
	deaths := 0
	r := &relay{died: func() { deaths++ }}
	r.report(supervisor.Fact{Kind: supervisor.Refused})
	r.report(supervisor.Fact{Kind: supervisor.Ended})
	var got []supervisor.FactKind
	r.seat(func(f supervisor.Fact) { got = append(got, f.Kind) })
	r.report(supervisor.Fact{Kind: supervisor.Tail})
	if deaths != 1 || len(got) != 3 || got[0] != supervisor.Refused || got[1] != supervisor.Ended || got[2] != supervisor.Tail {
		t.Errorf("%d deaths, %v", deaths, got)
	}
}

// A process that was a standby is found where the record says that it is.
func TestSeatOf(t *testing.T) {
	born := place{"web", -1, 77}
	r := &supervisor.Record{Instances: []supervisor.InstanceRecord{
		{Index: 0, Procs: []supervisor.ProcessRecord{{Gen: 3, Tag: "web/0/3"}}},
		{Index: 2, Procs: []supervisor.ProcessRecord{{Gen: 5, Tag: born.String()}}},
	}}
	if got := seatOf(r, born); got != (place{"web", 2, 5}) {
		t.Errorf("%+v", got)
	}
	idle := place{"web", -1, 78}
	if got := seatOf(r, idle); got != idle || wanted(r, got.Index) {
		t.Errorf("a standby without a place: %+v", got)
	}
}
