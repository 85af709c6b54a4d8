// Package ssetest checks streams of Server-Sent Events, for tests.
package ssetest
