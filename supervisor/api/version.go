package api

// Version is gpm's own, set when it is built:
//
//	go build -ldflags "-X gpm/supervisor/api.Version=1.2.3" ./cmd/gpm
var Version = "dev"
