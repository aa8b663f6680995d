// Command container is the program in the containers of the end-to-end tests: what it writes is seeded, and so is what it wants to read
// (test/e2e/seeded). It exits with 2 when it is used wrongly, and with the status [wrong] when it has read something else than it should.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// wrong is the exit status of who was not told what it should have been.
const wrong = 97

// errWrong wraps what was wrong about the input.
var errWrong = errors.New("the input is wrong")

var commands = map[string]func(arguments) error{
	"pour": pour, "swallow": swallow, "echo": echo, "await": await, "shell": shell, "talk": talk, "list": list, "serve": serve,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "there is no such command")
		os.Exit(2)
	}
	err := commands[os.Args[1]](os.Args[2:])
	var exit exitError
	switch {
	case errors.As(err, &exit):
		os.Exit(int(exit))
	case errors.Is(err, errWrong):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(wrong)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// exitError is an error that nobody is told of but by the exit status.
type exitError int

func (e exitError) Error() string { return "exit status " + strconv.Itoa(int(e)) }

// arguments are those of a command.
type arguments []string

// number is an argument that is not negative; 0 if there are not so many.
func (a arguments) number(i int) int64 {
	if i >= len(a) {
		return 0
	}
	n, err := strconv.ParseInt(a[i], 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return n
}

// key is the key of the command's stream: its first argument.
func (a arguments) key() uint64 { return uint64(a.number(0)) }
