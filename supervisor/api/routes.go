package api

// Right says who may use a route.
type Right string

// Rights of access. The unix socket knows the caller by SO_PEERCRED.
const (
	Anyone Right = "anyone" // whoever can open the socket
	Owner  Right = "owner"  // the daemon's own uid, or root
)

// Route is one row of the route table.
type Route struct {
	Name    string
	Method  string
	Path    string
	Right   Right
	Streams bool // answers with server-sent events until either side leaves
	Doc     string
}

// The names of the routes; the daemon registers a handler for each and a test
// holds the two lists against each other.
const (
	RoutePing      = "ping"
	RouteList      = "list"
	RouteDescribe  = "describe"
	RouteStart     = "start"
	RouteStop      = "stop"
	RouteRestart   = "restart"
	RouteReload    = "reload"
	RouteDelete    = "delete"
	RouteScale     = "scale"
	RouteDrain     = "drain"
	RouteAbort     = "abort"
	RouteReset     = "reset"
	RouteFlush     = "flush"
	RouteLogs      = "logs"
	RouteEvents    = "events"
	RouteSave      = "save"
	RouteResurrect = "resurrect"
	RouteUpdate    = "update"
	RouteKill      = "kill"
	RouteDoctor    = "doctor"
)

// Routes is every route of the daemon.
var Routes = []Route{
	{RoutePing, "GET", "/v1/ping", Owner, false, "Daemon"},
	{RouteList, "GET", "/v1/apps", Owner, false, "List; ?target= may repeat"},
	{RouteDescribe, "GET", "/v1/describe", Owner, false, "[]Description; ?target= may repeat, ?env=1 shows values"},
	{RouteStart, "POST", "/v1/start", Owner, false, "StartRequest -> Result"},
	{RouteStop, "POST", "/v1/stop", Owner, false, "ActRequest -> Result"},
	{RouteRestart, "POST", "/v1/restart", Owner, false, "ActRequest -> Result; starts what is stopped"},
	{RouteReload, "POST", "/v1/reload", Owner, false, "ActRequest -> Result"},
	{RouteDelete, "POST", "/v1/delete", Owner, false, "ActRequest -> Result"},
	{RouteScale, "POST", "/v1/scale", Owner, false, "ActRequest -> Result"},
	{RouteDrain, "POST", "/v1/drain", Owner, false, "ActRequest -> Result; takes instances out of traffic, Undo back; answers at once"},
	{RouteAbort, "POST", "/v1/abort", Owner, false, "ActRequest -> Result; ends rollouts, says per instance which version runs"},
	{RouteReset, "POST", "/v1/reset", Owner, false, "ActRequest -> Result; counters to zero"},
	{RouteFlush, "POST", "/v1/flush", Owner, false, "ActRequest -> FlushResult; empties log files"},
	{RouteLogs, "GET", "/v1/logs", Owner, true, "SSE of LogLine; ?target= ?lines= ?out=1 ?err=1 ?follow=1"},
	{RouteEvents, "GET", "/v1/events", Owner, true, "SSE: one snapshot (List), then Event"},
	{RouteSave, "POST", "/v1/save", Owner, false, "SaveResult"},
	{RouteResurrect, "POST", "/v1/resurrect", Owner, false, "Result"},
	{RouteUpdate, "POST", "/v1/update", Owner, false, "UpdateRequest; the daemon is replaced by the given binary"},
	{RouteKill, "POST", "/v1/kill", Owner, false, "Result; stops all apps, then daemon and keeper end"},
	{RouteDoctor, "GET", "/v1/doctor", Owner, false, "[]Check"},
}

// Find is the route of that name. It panics on a name that is not in the table.
func Find(name string) Route {
	for _, r := range Routes {
		if r.Name == name {
			return r
		}
	}
	panic("no route " + name)
}

// FlushResult names the files that were emptied.
type FlushResult struct {
	Files []string `json:"files"`
}

// SaveResult tells what was written where.
type SaveResult struct {
	Path string `json:"path"`
	Apps int    `json:"apps"`
}

// UpdateRequest names the binary of the next daemon.
type UpdateRequest struct {
	Exe string `json:"exe"`
}

// DefaultLogLines is how many lines gpm logs shows before it follows.
const DefaultLogLines = 15
