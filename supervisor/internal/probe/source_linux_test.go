package probe

import "testing"

// On Linux all of 127.0.0.0/8 is local without further ado: the addresses by
// which gpm tells its own connections.
func TestSourcesOfSteering(t *testing.T) {
	checkSource(t, "0.0.0.0:0", "127.77.1.2", "127.77.1.2")
	checkSource(t, "127.0.0.1:0", "127.77.0.3", "127.77.0.3")
}
