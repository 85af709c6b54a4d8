package supervisor

import (
	"slices"
	"time"
)

type alarmKind string

const (
	alarmSettle alarmKind = "settle" // a process lived for settleTime
	alarmLimit  alarmKind = "limit"  // listen_timeout is over
	alarmStable alarmKind = "stable" // earlier deaths are forgotten
	alarmKill   alarmKind = "kill"   // kill_timeout is over
	alarmLost   alarmKind = "lost"   // alive after SIGKILL, or a spawn without an answer
	alarmRetire alarmKind = "retire" // a disk had its time to take the record of a takeover
	alarmDue    alarmKind = "due"    // the restart is due (alarm of the instance)
	alarmDrain  alarmKind = "drain"  // the time for a process's streams is over
	alarmLack   alarmKind = "lack"   // it had its time to listen on all that its predecessor did
	alarmProbe  alarmKind = "probe"  // the next check of a process is due
	alarmQueue  alarmKind = "queue"  // connections have waited long enough (alarm of the instance)
	alarmTail   alarmKind = "tail"   // the last lines had their time
)

const (
	tailTime   = 6 * time.Second // for the last lines of a dead process: longer than the world takes to drain its pipes (5 s)
	retireTime = 2 * time.Second // for the record of a takeover
)

// alarms is what an instance waits for: a short list, one timer.
type alarms []alarm

type alarm struct {
	kind alarmKind
	gen  int // the process it is about; 0: the instance
	at   time.Time
}

// set arms one alarm, in place of an earlier one of that kind and generation.
func (a *alarms) set(k alarmKind, gen int, in time.Duration) {
	a.cancel(k, gen)
	*a = append(*a, alarm{k, gen, time.Now().Add(in)})
}

func (a alarms) has(k alarmKind, gen int) bool {
	return slices.ContainsFunc(a, func(x alarm) bool { return x.kind == k && x.gen == gen })
}

func (a *alarms) cancel(k alarmKind, gen int) {
	*a = slices.DeleteFunc(*a, func(x alarm) bool { return x.kind == k && x.gen == gen })
}

// forget drops all alarms about a process.
func (a *alarms) forget(gen int) {
	*a = slices.DeleteFunc(*a, func(x alarm) bool { return x.gen == gen })
}

// next is how long until the first alarm; an hour if there is none.
func (a alarms) next(now time.Time) time.Duration {
	d := time.Hour
	for _, x := range a {
		d = min(d, x.at.Sub(now))
	}
	return max(d, 0)
}

// due takes the alarms whose time has come, the earliest first.
func (a *alarms) due(now time.Time) []alarm {
	var r []alarm
	*a = slices.DeleteFunc(*a, func(x alarm) bool {
		if x.at.After(now) {
			return false
		}
		r = append(r, x)
		return true
	})
	slices.SortStableFunc(r, func(x, y alarm) int { return x.at.Compare(y.at) })
	return r
}
