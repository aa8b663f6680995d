// Package shell is what runs in the containers of the embedded cluster: a
// POSIX shell and a few of the commands that people type into one, with the
// terminal in front of it and the files behind it.
//
// All of it happens in memory. No program of the host is run, no file of the
// host is opened or looked at, and what a script may use up is bounded:
// variables, files, the depth of calls, jobs. What it may use of time is up
// to who runs it, whose context ends everything, also a read that waits.
//
// The language is parsed and its words are expanded by mvdan.cc/sh. That
// library's interpreter is not used: it looks at the host's files for some of
// its built-in commands, and puts an operating system's pipe between two
// commands, which a context does not interrupt.
package shell
