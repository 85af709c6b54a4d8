package main

import (
	"embed"
	"net/http"
)

//go:embed web
var web embed.FS

// addPage serves the page at /. Everything it needs is in the binary, and its
// policy lets it load nothing else.
func addPage(mux *http.ServeMux) {
	for pattern, file := range map[string]string{
		"GET /{$}":       "web/index.html",
		"GET /page.js":   "web/page.js",
		"GET /style.css": "web/style.css",
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Cache-Control", "no-cache")
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
				"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			http.ServeFileFS(w, r, web, file)
		})
	}
}
