package proc

// sighting is everything the members of a Session tree follow from.
type sighting struct {
	all    map[int]Stat       // every process of the machine
	root   Identity           // zero: not known
	seen   map[int]uint64     // pid -> start of the members found before
	marked func(pid int) bool // does its environment carry the tree's name
	self   int                // pid of this process
	// thorough asks marked about everybody; else only about those whose session says so.
	thorough bool
}

// members finds the tree without a cgroup: descendants of the root, members of
// its session, those seen before, those that carry the tree's name, and all
// descendants of these. A wrong answer here kills strangers, so three things
// hold for every answer whatever else is true: nobody in it is older than the
// root, nobody is this process or an ancestor of it (a daemon that was started
// from inside an app carries that app's marker), nobody is init or of the kernel.
//
// A session number is a pid: once the root was reaped and its session is empty
// the kernel may give that number to a stranger. So without the root its
// session counts only for those who carry the marker or were seen before.
func (s sighting) members() map[int]bool {
	st, rooted := s.all[s.root.PID]
	rooted = rooted && st.Start == s.root.Start && !s.root.Zero()
	eligible := s.eligible()
	found := map[int]bool{}
	var queue []int
	add := func(pid int) {
		if eligible(pid) && !found[pid] {
			found[pid] = true
			queue = append(queue, pid)
		}
	}
	for pid, st := range s.all {
		inSession := st.Session == s.root.PID && !s.root.Zero()
		start, before := s.seen[pid]
		switch {
		case rooted && (pid == s.root.PID || inSession), before && start == st.Start:
			add(pid)
		case (s.thorough || inSession) && eligible(pid) && s.marked(pid):
			add(pid)
		}
	}
	children := map[int][]int{}
	for pid, st := range s.all {
		children[st.PPid] = append(children[st.PPid], pid)
	}
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		for _, c := range children[pid] {
			add(c)
		}
	}
	return found
}

// eligible makes the test that every member has to pass.
func (s sighting) eligible() func(pid int) bool {
	spared := map[int]bool{}
	for pid := s.self; pid > 0 && !spared[pid]; pid = s.all[pid].PPid {
		spared[pid] = true
	}
	const initPID, kthreadd = 1, 2
	return func(pid int) bool {
		st, ok := s.all[pid]
		kernel := pid == kthreadd && st.PPid == 0 || st.PPid == kthreadd && st.PGrp == 0
		return ok && pid > initPID && !spared[pid] && !kernel && st.Start >= s.root.Start
	}
}
