package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gpm/examples/sse-app/internal/bus"
)

// An EventSource sends no headers of its own, so who asks must be in a cookie:
// a name, the time until which it is good, and the proof that one of the
// instances wrote both. There is no password: this is an example.
const (
	cookieName = "sse_user"
	cookieLife = 7 * 24 * time.Hour
	maxLogin   = 4 << 10
)

var userNames = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

func validUser(name string) bool { return userNames.MatchString(name) }

func errUser(name string) error {
	return fmt.Errorf("user %.80q: a name has 1 to 64 letters, digits, '.', '_', '-' or '@'", name)
}

// addSession serves the login.
func (a *app) addSession(mux *http.ServeMux) {
	mux.HandleFunc("POST /login", a.sameSite(a.login))
	mux.HandleFunc("POST /logout", a.sameSite(a.logout))
	mux.HandleFunc("GET /me", a.me)
}

// sameSite refuses what a page of somebody else makes a visitor's browser send,
// by whatever method: an <img> sends a GET.
func (a *app) sameSite(next http.HandlerFunc) http.HandlerFunc {
	guard := http.NewCrossOriginProtection()
	for _, origin := range a.origins {
		if err := guard.AddTrustedOrigin(origin); err != nil {
			a.err.Printf("-origin: %v", err) // it stays refused
		}
	}
	return func(w http.ResponseWriter, r *http.Request) {
		changes := *r
		changes.Method = http.MethodPost
		if err := guard.Check(&changes); err != nil {
			refuse(w, http.StatusForbidden, errors.New("pages of another site may not do this; -origin lets one"))
			return
		}
		next(w, r)
	}
}

// ownKey keeps pages of other sites from spending the key that the upstream
// knows us by (UPSTREAM_API_KEY). Who brings a key of his own is welcome.
func (a *app) ownKey(next http.HandlerFunc) http.HandlerFunc {
	if a.upstream == "" || a.askKey == "" {
		return next
	}
	guarded := a.sameSite(next)
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			next(w, r)
			return
		}
		guarded(w, r)
	}
}

func (a *app) login(w http.ResponseWriter, r *http.Request) {
	name, err := loginName(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	keys := a.keys(r.Context())
	if len(keys) == 0 { // a cookie with a key of our own would be worth nothing elsewhere
		a.unavailable(w, bus.ErrDown)
		return
	}
	a.setCookie(w, r, sign(keys[0], name, time.Now().Add(cookieLife)), int(cookieLife/time.Second))
}

func (a *app) logout(w http.ResponseWriter, r *http.Request) { a.setCookie(w, r, "", -1) }

// setCookie is the whole answer. The cookie is kept from scripts, from other
// sites' requests, and from the network wherever TLS is in front.
func (a *app) setCookie(w http.ResponseWriter, r *http.Request, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	})
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// loginName reads user from a form or from JSON.
func loginName(w http.ResponseWriter, r *http.Request) (string, error) {
	body, err := readBody(w, r, maxLogin)
	if err != nil {
		return "", err
	}
	var ask struct {
		User string `json:"user"`
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		if err := json.Unmarshal(body, &ask); err != nil {
			return "", fmt.Errorf("the body is not JSON with a user: %v", err)
		}
	} else {
		r.Body = newBody(body)
		ask.User = r.PostFormValue("user")
	}
	if !validUser(ask.User) {
		return "", errUser(ask.User)
	}
	return ask.User, nil
}

func (a *app) me(w http.ResponseWriter, r *http.Request) {
	var name *string
	if u := a.user(r); u != "" {
		name = &u
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, map[string]*string{"user": name})
}

// user is who asks, by the cookie; empty: nobody.
func (a *app) user(r *http.Request) string {
	name, _ := a.visitor(r)
	return name
}

// visitor is user, but tells nobody (nil) from somebody whose cookie cannot be
// read now: the instances have no key yet, as the bus is away.
func (a *app) visitor(r *http.Request) (name string, err error) {
	c, err := r.Cookie(cookieName)
	if err != nil || len(c.Value) > 256 {
		return "", nil
	}
	keys := a.keys(r.Context())
	if len(keys) == 0 {
		return "", bus.ErrDown
	}
	for _, key := range keys {
		if name := verify(key, c.Value, time.Now()); name != "" {
			return name, nil
		}
	}
	return "", nil
}

// sign is the value of a cookie: name:time:proof.
func sign(key []byte, name string, until time.Time) string {
	text := name + ":" + strconv.FormatInt(until.Unix(), 10)
	return text + ":" + proof(key, text)
}

// verify is the name in a cookie's value; empty: not ours, or too old.
func verify(key []byte, value string, now time.Time) string {
	i := strings.LastIndexByte(value, ':')
	if i < 0 || !hmac.Equal([]byte(value[i+1:]), []byte(proof(key, value[:i]))) {
		return ""
	}
	name, until, _ := strings.Cut(value[:i], ":")
	if t, err := strconv.ParseInt(until, 10, 64); err != nil || now.Unix() >= t || !validUser(name) {
		return ""
	}
	return name
}

func proof(key []byte, text string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(cookieName + "\n" + text)) // a key may have other uses, too
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// keyring is what cookies are signed with.
type keyring struct {
	mu    sync.Mutex
	keys  [][]byte // the newest signs; the others are of a bus that has forgotten them
	asked time.Time
}

const (
	keyName = "session-secret"
	maxKeys = 4
	askKeys = 10 * time.Second // how often the bus is asked: it must not forget, and may have
)

// keys are those that all instances share: SESSION_SECRET, or that of the file
// beside the bus's, or what they have agreed on, or without a bus one of this
// process. There are none only if the
// bus is away and was never there.
func (a *app) keys(ctx context.Context) [][]byte {
	if a.secret != "" {
		return [][]byte{[]byte(a.secret)}
	}
	keys, ask := a.keyring.look(a.bus != nil)
	if !ask {
		return keys
	}
	proposal := rand.Text()
	if len(keys) > 0 {
		proposal = string(keys[0])
	}
	agreed, err := a.bus.Agree(ctx, keyName, proposal)
	if err != nil {
		return keys
	}
	return a.keyring.add([]byte(agreed))
}

// secretIn is what the instances of one machine sign cookies with: the content of
// a file, made by whoever comes first. Unlike what is on the bus of one machine,
// it outlives that bus.
func secretIn(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return strings.TrimSpace(string(b)), err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	// Written aside and linked: of two who come at once one is first, and nobody
	// reads half a secret.
	aside, err := os.CreateTemp(filepath.Dir(path), ".session-*") // 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(aside.Name())
	_, err = aside.WriteString(rand.Text() + "\n")
	if err := errors.Join(err, aside.Close()); err != nil {
		return "", err
	}
	if err := os.Link(aside.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	b, err = os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// look gives the keys, and says whether the caller has to ask the bus: everybody
// as long as there are none, later one now and then.
func (k *keyring) look(shared bool) (keys [][]byte, ask bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !shared && k.keys == nil {
		k.keys = [][]byte{[]byte(rand.Text())}
	}
	if !shared || k.keys != nil && time.Since(k.asked) < askKeys {
		return k.keys, false
	}
	k.asked = time.Now()
	return k.keys, true
}

// add makes key the one that signs. The slice is a new one: others read the old.
func (k *keyring) add(key []byte) [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	older := slices.DeleteFunc(slices.Clone(k.keys), func(old []byte) bool { return string(old) == string(key) })
	k.keys = append([][]byte{key}, older[:min(len(older), maxKeys-1)]...)
	return k.keys
}
