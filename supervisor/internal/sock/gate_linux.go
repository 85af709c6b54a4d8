package sock

import "gpm/supervisor/internal/trap"

// park keeps a call waiting that must not be answered yet.
func (h *Holder) park(t *trap.Trap) bool {
	if t.Call != trap.Bind || t.Address.Port() == 0 || h.o.Gate == nil || !h.o.Gate(t.Tag) {
		return false
	}
	list := h.parked[t.Tag]
	for i, old := range list {
		if old.Notification.TID == t.Notification.TID {
			// A thread waits in one call: a signal had interrupted the former.
			closeSocket(old)
			list[i] = t
			return true
		}
	}
	h.parked[t.Tag] = append(list, t)
	return true
}

// Gated tells whether a process of tag waits in bind().
func (h *Holder) Gated(tag string) bool {
	h.op.Lock()
	defer h.op.Unlock()
	return len(h.parked[tag]) > 0
}

// Ungate decides about the calls of tag that waited, once Gate lets them pass
// and Owner tells their place. The answers are to be carried out, in order, as
// those of Handle; what comes after is Handle's.
func (h *Holder) Ungate(tag string) []Answer {
	h.op.Lock()
	defer h.op.Unlock()
	var out []Answer
	for _, t := range h.parked[tag] {
		out = append(out, Answer{Trap: t, Verdict: h.judge(t)})
	}
	delete(h.parked, tag)
	return out
}

// Forget drops the calls of tag that wait: its processes are dead.
func (h *Holder) Forget(tag string) {
	h.op.Lock()
	defer h.op.Unlock()
	for _, t := range h.parked[tag] {
		closeSocket(t)
	}
	delete(h.parked, tag)
}

func closeSocket(t *trap.Trap) {
	if t.Socket != nil {
		t.Socket.Close()
	}
}
