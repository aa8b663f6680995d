//go:build !unix

package main

import "os"

// notifyResize tells c nothing: this system sends no signal when the terminal's size changes.
func notifyResize(chan<- os.Signal) {}
