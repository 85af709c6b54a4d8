package main

import (
	"embed"
	"net/http"
	"strings"
)

//go:embed web
var web embed.FS

// pagePolicy lets a page load what is in the binary, talk to its own server, and
// nothing else; no text can become markup, whatever the code does.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// addPage serves what is in web: the page at /, the smallest one at /seed.
func addPage(mux *http.ServeMux) {
	files, err := web.ReadDir("web")
	if err != nil {
		panic(err) // it was there when this was compiled
	}
	for _, file := range files {
		path := "/" + strings.TrimSuffix(file.Name(), ".html")
		if path == "/index" {
			path = "/{$}"
		}
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Cache-Control", "no-cache")
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Content-Security-Policy", pagePolicy)
			http.ServeFileFS(w, r, web, "web/"+file.Name())
		})
	}
}
