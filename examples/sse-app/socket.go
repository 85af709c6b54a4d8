package main

import "net/http"

// addSocket serves the WebSocket chat.
func (a *app) addSocket(mux *http.ServeMux) {}
