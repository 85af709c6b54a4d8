package main

import "net/http"

// addMetrics serves GET /metrics.
func (a *app) addMetrics(mux *http.ServeMux) {}
