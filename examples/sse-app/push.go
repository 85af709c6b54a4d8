package main

import "net/http"

// addPush serves what one user or everybody is told.
func (a *app) addPush(mux *http.ServeMux) {}
