package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is one page in a real browser. Whatever a test does in it, the page must
// talk to its own server only, and must not throw.
type tab struct {
	t   *testing.T
	ctx context.Context
	url string

	mu     sync.Mutex
	asked  []string // the URLs of all requests
	faults []string // exceptions, and what the page's policy forbade
	errors []string // all errors of the console, failed requests included
}

// browse opens a browser of its own at a URL. look may change how it looks first.
func browse(t *testing.T, address string, look ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	ctx := browserContext(t)
	b := &tab{t: t, ctx: ctx, url: address}
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	b.do(look...)
	b.do(chromedp.Navigate(address))
	t.Cleanup(b.check)
	return b
}

func browserContext(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium-headless-shell")
	if err != nil {
		t.Skip("there is no chromium-headless-shell; packaging/test-tools.sh installs it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(patience), chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		chromedp.Cancel(ctx) // waits, so that the directory can be removed
		cancel()
	})
	return ctx
}

func (b *tab) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, ev.Request.URL)
	case *network.EventWebSocketCreated:
		b.asked = append(b.asked, ev.URL)
	case *runtime.EventExceptionThrown:
		fault := ev.ExceptionDetails.Text
		if ev.ExceptionDetails.Exception != nil {
			fault += " " + ev.ExceptionDetails.Exception.Description
		}
		b.faults = append(b.faults, fault)
	case *log.EventEntryAdded:
		if ev.Entry.Level != log.EntryLevelError {
			break
		}
		b.errors = append(b.errors, ev.Entry.Text)
		if ev.Entry.Source == log.EntrySourceSecurity {
			b.faults = append(b.faults, ev.Entry.Text)
		}
	}
}

// check is at the end of every test with a browser.
func (b *tab) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	home, _ := url.Parse(b.url)
	for _, address := range b.asked {
		if u, err := url.Parse(address); err != nil || u.Scheme != "data" && u.Host != home.Host {
			b.t.Errorf("the page talked to %s", address)
		}
	}
	for _, fault := range b.faults {
		b.t.Errorf("fault in the page: %s", fault)
	}
}

func (b *tab) consoleErrors() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.errors...)
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// js evaluates an expression in the page, and waits for it if it is a promise.
func js[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 2*patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits in the page. chromedp.Poll cannot: the page's policy forbids what
// it is made of.
func (b *tab) until(condition string) {
	b.t.Helper()
	ok := js[bool](b, fmt.Sprintf(`(async () => {
		const end = performance.now() + %d;
		while (!(%s)) {
			if (performance.now() > end) return false;
			await new Promise((go) => setTimeout(go, 10));
		}
		return true;
	})()`, patience.Milliseconds(), condition))
	if !ok {
		b.t.Fatalf("waited %s in vain for %s; the page says:\n%s\nconsole: %q",
			patience, condition, b.text("[role=status], #chat-log, .figures, main li:last-child"), b.consoleErrors())
	}
}

// shows waits until the text of what a selector finds contains something.
func (b *tab) shows(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%s)?.textContent.includes(%s)", quote(selector), quote(text)))
}

// text is the text of everything that a selector finds, joined.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return js[string](b, fmt.Sprintf("[...document.querySelectorAll(%s)].map((e) => e.textContent).join('|')", quote(selector)))
}

func (b *tab) click(id string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS("#"+id), chromedp.NodeEnabled))
}

func (b *tab) write(id, text string) {
	b.t.Helper()
	b.do(chromedp.SendKeys(chromedp.CSS("#"+id), text))
}

func (b *tab) press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// way chooses how the answer comes: "ticket" or "fetch".
func (b *tab) way(mode string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS("[name=mode][value=" + mode + "]")))
}

func (b *tab) ask(mode, text string) {
	b.t.Helper()
	b.way(mode)
	b.write("chat-input", text)
	b.click("chat-send")
}

func quote(s string) string {
	q, _ := json.Marshal(s)
	return string(q)
}

// ---- How it looks ----

func viewport(width, height int64) chromedp.Action[chromedp.Void] {
	return chromedp.EmulateViewport(width, height)
}

func media(feature, value string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, _ *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: feature, Value: value}},
		})
		return chromedp.Void{}, err
	}
}

// early is a script that runs before those of the page.
func early(script string) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, _ *chromedp.Target) (chromedp.Void, error) {
		_, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
		return chromedp.Void{}, err
	}
}

// picture writes what the page looks like into a folder, for people.
func (b *tab) picture(folder, name string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(folder+"/"+name+".png", png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// axe is the accessibility checker, which the tests of real clients install.
func axe(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/clients/node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Skip("there is no axe-core; packaging/test-tools.sh installs it")
	}
	return string(b)
}

// complaints is what axe finds wrong with the page as it is now.
func (b *tab) complaints(axe string) []string {
	b.t.Helper()
	js[chromedp.Void](b, strings.TrimSpace(axe)+"\n;undefined")
	return js[[]string](b, `axe.run().then(({ violations }) => violations.flatMap((v) =>
		v.nodes.map((n) => v.id + ": " + n.target + ": " + n.failureSummary)))`)
}
