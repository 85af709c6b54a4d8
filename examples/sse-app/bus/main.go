// Command sse-bus is a small Redis for one machine.
package main

func main() {}
