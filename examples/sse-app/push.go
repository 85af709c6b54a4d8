package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gpm/examples/sse-app/internal/bus"
)

// The logs on the bus that clients of /stream follow.
const newsLog = "news" // everybody's

func inboxLog(user string) string { return "user:" + user }

const (
	maxMessage  = 64 << 10
	maxUsers    = 100             // of one push
	maxHistory  = 1 << 20         // bytes of data in one answer of /history
	publishTime = 2 * time.Second // for all users of one push together
)

// addPush serves what one user or everybody is told.
func (a *app) addPush(mux *http.ServeMux) {
	push := a.sameSite(a.trusted(a.push))
	mux.HandleFunc("POST /push", push)
	mux.HandleFunc("GET /send_message", a.sameSite(a.trusted(a.sendMessage)))
	mux.HandleFunc("POST /send_message", a.sameSite(a.trusted(a.sendMessage)))
	mux.HandleFunc("GET /history", a.history)
	mux.HandleFunc("/time", a.time)
	mux.HandleFunc("GET /echo", a.echo)
}

// trusted lets only those publish who know the PUSH_TOKEN, if there is one.
func (a *app) trusted(next http.HandlerFunc) http.HandlerFunc {
	want := "Bearer " + os.Getenv("PUSH_TOKEN")
	return func(w http.ResponseWriter, r *http.Request) {
		got := r.Header.Get("Authorization")
		if want != "Bearer " && subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, errors.New("send the PUSH_TOKEN in a header: Authorization: Bearer TOKEN"))
			return
		}
		next(w, r)
	}
}

// push is POST /push?user=a: the body goes to the inbox of each user, where the
// streams find it that are open, on whichever instance, or will be. It waits
// for none of them.
func (a *app) push(w http.ResponseWriter, r *http.Request) {
	users, err := receivers(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	id, text, ok := a.message(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), publishTime)
	defer cancel()
	sent := map[string]bool{}
	for _, user := range users {
		_, fresh, err := a.bus.Publish(ctx, inboxLog(user), bus.Entry{ID: id, Kind: "push", Data: text})
		if err != nil {
			if ctx.Err() != nil {
				err = bus.ErrDown // it takes too long
			}
			a.partly(w, err, id, sent)
			return
		}
		sent[user] = fresh
		if fresh {
			a.metrics.published.Inc()
		} else {
			a.metrics.deduplicated.Inc()
		}
	}
	writeJSON(w, http.StatusAccepted, map[string]any{"id": id, "sent": sent})
}

// partly says what was published before the bus went away. Who sends the same
// again with the id reaches everybody once.
func (a *app) partly(w http.ResponseWriter, err error, id string, sent map[string]bool) {
	w.Header().Set("Retry-After", "1")
	writeJSON(w, http.StatusServiceUnavailable, map[string]any{
		"error": err.Error() + "; send it again with this id", "id": id, "sent": sent,
	})
}

// receivers are the users of a push, each once.
func receivers(r *http.Request) (users []string, err error) {
	query := r.URL.Query()
	all := query["user"]
	for _, list := range query["users"] {
		all = append(all, strings.Split(list, ",")...)
	}
	for _, name := range all {
		if !validUser(name) {
			return nil, errUser(name)
		}
		if !slices.Contains(users, name) {
			users = append(users, name)
		}
		if len(users) > maxUsers {
			return nil, fmt.Errorf("more than %d users in one push", maxUsers)
		}
	}
	if users == nil {
		return nil, errors.New("nobody to push to: ?user=alice or ?users=alice,bob")
	}
	return users, nil
}

// message reads what is to be published and the id that keeps a message that is
// sent twice from arriving twice. If it is not ok, it has answered.
func (a *app) message(w http.ResponseWriter, r *http.Request) (id, text string, ok bool) {
	id, err := messageID(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return "", "", false
	}
	body, err := readBody(w, r, maxMessage)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the message is larger than %d KiB", maxMessage>>10))
	case err != nil:
		refuse(w, http.StatusBadRequest, err)
	case !isText(body):
		refuse(w, http.StatusBadRequest, errors.New("an event stream carries text only; this is binary: send it as base64"))
	case a.bus == nil:
		a.unavailable(w, errNoBus)
	case len(body) == 0 && r.URL.Path == "/push":
		refuse(w, http.StatusBadRequest, errors.New("the body is the message, and it is empty"))
	default:
		return id, string(body), true
	}
	return "", "", false
}

func isText(b []byte) bool { return utf8.Valid(b) && !bytes.ContainsRune(b, 0) }

var messageIDs = regexp.MustCompile(`^[!-~]{1,128}$`)

// messageID is the publisher's name for a message; a new one if he gives none.
func messageID(r *http.Request) (string, error) {
	id := r.URL.Query().Get("id")
	if id == "" {
		id = r.Header.Get("Idempotency-Key")
	}
	if id == "" {
		return rand.Text(), nil
	}
	if !messageIDs.MatchString(id) {
		return "", fmt.Errorf("id %.40q: an id has 1 to 128 printable ASCII letters and no blank", id)
	}
	return id, nil
}

// sendMessage tells everybody who is connected, on all instances.
func (a *app) sendMessage(w http.ResponseWriter, r *http.Request) {
	id, text, ok := a.message(w, r)
	if !ok {
		return
	}
	for _, other := range []string{r.URL.Query().Get("message"), "Hello, SSE!"} {
		if text == "" {
			text = other
		}
	}
	if !isText([]byte(text)) {
		refuse(w, http.StatusBadRequest, errors.New("message is no text"))
		return
	}
	data := string(mustJSON(map[string]string{"message": text}))
	_, fresh, err := a.bus.Publish(r.Context(), newsLog, bus.Entry{ID: id, Kind: "message", Data: data})
	if err != nil {
		a.unavailable(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": "Message sent!", "id": id, "fresh": fresh})
}

// errNoBus is the answer where the bus is needed.
//
//lint:ignore ST1005 it is the whole answer that the client sees
var errNoBus = errors.New("There is no bus: set REDIS_URL, or start sse-bus and set BUS_FILE.")

// refuse answers with an error in words.
func refuse(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

// unavailable answers what could not be done without the bus. Without a
// Retry-After it will not be there in a second either.
func (a *app) unavailable(w http.ResponseWriter, err error) {
	if !errors.Is(err, errNoBus) {
		w.Header().Set("Retry-After", "1")
	}
	refuse(w, http.StatusServiceUnavailable, err)
}

// readBody reads a body of at most limit bytes, which must not trickle in for ever.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(10 * time.Second))
	defer rc.SetReadDeadline(time.Time{})
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	return b, nil
}

func newBody(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
