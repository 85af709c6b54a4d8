package main

import "net/http"

// addTickets serves answers that outlive the process that writes them.
func (a *app) addTickets(mux *http.ServeMux) {}

// followTicket is GET /stream?ticket=...
func (a *app) followTicket(w http.ResponseWriter, r *http.Request, ticket string) {
	http.Error(w, "not yet", http.StatusNotFound)
}
