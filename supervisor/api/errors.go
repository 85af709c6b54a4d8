package api

import "net/http"

// Kind classifies an error on the wire. Append only: old clients know the old ones.
type Kind string

// The kinds of errors.
const (
	KindInvalid  Kind = "invalid"   // the request makes no sense: mend it
	KindNotFound Kind = "not-found" // no such app, instance or route
	KindConflict Kind = "conflict"  // somebody else has it: a name, a port, a running rollout
	KindFailed   Kind = "failed"    // it was tried and did not work
	KindTimeout  Kind = "timeout"   // a deadline passed
	KindDenied   Kind = "denied"    // not your daemon
	KindVersion  Kind = "version"   // the client is newer than the daemon
	KindInternal Kind = "internal"  // a bug in gpm
)

// Error is an error as it crosses the wire: what went wrong, and what to do next.
type Error struct {
	Kind    Kind   `json:"kind"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// HTTPStatus is the one place where kinds meet HTTP.
func (e *Error) HTTPStatus() int {
	switch e.Kind {
	case KindInvalid:
		return http.StatusBadRequest
	case KindNotFound:
		return http.StatusNotFound
	case KindConflict:
		return http.StatusConflict
	case KindTimeout:
		return http.StatusGatewayTimeout
	case KindDenied:
		return http.StatusForbidden
	case KindVersion:
		return http.StatusUpgradeRequired
	case KindFailed:
		return http.StatusUnprocessableEntity
	case KindInternal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}
