package monit

// Sizes of the screen that change its shape.
const (
	minWidth  = 40
	minHeight = 9
	wideFrom  = 130 // list and logs side by side

	wideDetail = 12 // rows of the detail before the list is scrolled
)

// layout is how many rows and columns each part has.
//
//	stacked            wide
//	header             header
//	heads, list        heads, list   | title, logs
//	title, detail      title, detail |
//	title, logs        footer
//	footer
type layout struct {
	wide     bool
	tooSmall bool
	width    int // of the list and the detail
	logWidth int
	list     int // rows, without the heads; and so on
	detail   int
	logs     int
}

// measure lays the screen out. Only the number of instances and the size of the
// screen count, not what is selected or typed: nothing jumps while one moves about.
func (m *model) measure() layout {
	l := layout{width: m.width, logWidth: m.width}
	l.tooSmall = m.width < minWidth || m.height < minHeight
	body := m.height - 2 // header, footer
	if l.wide = m.width >= wideFrom && m.height > wideDetail+6; l.wide {
		l.width = min(max(m.width*9/20, 68), 84)
		l.logWidth = m.width - l.width - 3
		l.list = max(min(m.inScope, body-2-wideDetail), 1)
		l.detail = max(body-2-l.list, 0)
		l.logs = max(body-1, 1)
		return l
	}
	switch {
	case m.height >= 22:
		l.detail = 3
	case m.height >= 14:
		l.detail = 2
	default:
		l.detail = 1
	}
	room := body - 3 - l.detail // the heads of list, detail and logs
	l.list = max(min(m.inScope, room*2/5), 1)
	l.logs = max(room-l.list, 1)
	return l
}

// column is a column of the list, by its head.
type column string

// The columns, in their order.
const (
	colID       column = "id"
	colName     column = "name"
	colState    column = "state"
	colCPU      column = "cpu"
	colMemory   column = "mem"
	colStreams  column = "streams"
	colRestarts column = "restarts"
	colUptime   column = "uptime"
	colPID      column = "pid"
	colListen   column = "listens"
)

// cell is a column and its width.
type cell struct {
	column
	width int
}

// columns chooses what fits into the width; the name takes what is left, up to 40.
func columns(width int) []cell {
	cells := []cell{{colID, 4}, {colName, 0}, {colState, 17}, {colStreams, 7}, {colCPU, 6}, {colMemory, 6}, {colRestarts, 3}, {colUptime, 6}}
	switch {
	case width < 56:
		cells = []cell{{colID, 3}, {colName, 0}, {colState, 11}, {colCPU, 5}, {colMemory, 5}}
	case width < 68:
		cells = []cell{{colID, 3}, {colName, 0}, {colState, 11}, {colStreams, 7}, {colCPU, 5}, {colMemory, 5}, {colUptime, 6}}
	case width >= 112:
		cells = append(cells, cell{colPID, 8}, cell{colListen, 22})
	case width >= 92:
		cells = append(cells, cell{colPID, 8})
	}
	left := width - 1 // the pointer
	for _, c := range cells {
		left -= c.width + 1
	}
	cells[1].width = min(max(left, 4), 40)
	return cells
}

// isNumber tells which columns stand at the right edge.
func (c column) isNumber() bool {
	switch c {
	case colName, colState, colListen:
		return false
	}
	return true
}

// textWidth is the width of the text of a log line, without its mark and name.
func (m *model) textWidth(l layout) int {
	return max(l.logWidth-2-m.whoWidth(l), 1)
}

// whoWidth is the width of the instance's name before log lines: shown only
// where lines of several are mixed.
func (m *model) whoWidth(l layout) int {
	switch {
	case !m.whole || len(m.logs.ids) < 2:
		return 0
	case l.logWidth < 80:
		return 11
	}
	return 17
}
