package shell

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/expand"
)

// Bounds of a shell's variables.
const (
	variableCount = 1000
	variableSize  = 256 << 10 // of one, in bytes
)

// variable is a variable of a shell.
type variable struct {
	value    string
	exported bool
	readonly bool
}

// variables are those of one shell; it is its [expand.WriteEnviron], in which
// the special parameters are variables too. Owned by the shell.
type variables struct {
	shell *shell
	set   map[string]variable
}

func newVariables(sh *shell, env []string) *variables {
	v := &variables{sh, map[string]variable{}}
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		v.set[name] = variable{value: value, exported: true}
	}
	return v
}

// clone is what a subshell begins with.
func (v *variables) clone(sh *shell) *variables { return &variables{sh, maps.Clone(v.set)} }

// Get is the value of a variable or a special parameter (POSIX.1-2024, XCU 2.5).
func (v *variables) Get(name string) expand.Variable {
	text := func(s string) expand.Variable { return expand.Variable{Set: true, Kind: expand.String, Str: s} }
	switch name {
	case "#":
		return text(strconv.Itoa(len(v.shell.params)))
	case "@", "*":
		return expand.Variable{Set: true, Kind: expand.Indexed, List: append([]string{}, v.shell.params...)}
	case "?":
		return text(strconv.Itoa(v.shell.status))
	case "$", "PPID":
		return text("1")
	case "-":
		return text("")
	case "0":
		return text(v.shell.name)
	case "PWD":
		return text(v.shell.dir)
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 1 {
		if n > len(v.shell.params) {
			return expand.Variable{}
		}
		return text(v.shell.params[n-1])
	}
	if user, ok := strings.CutPrefix(name, "HOME "); ok { // "~user"; what is not set is looked up on the host
		return text("~" + user)
	}
	if got, ok := v.set[name]; ok {
		return text(got.value)
	}
	return expand.Variable{}
}

// Each calls f with every variable until it returns false.
func (v *variables) Each(f func(string, expand.Variable) bool) {
	for _, name := range slices.Sorted(maps.Keys(v.set)) {
		if !f(name, v.Get(name)) {
			return
		}
	}
}

// Set sets a variable, or takes it away.
func (v *variables) Set(name string, value expand.Variable) error {
	if !value.IsSet() {
		return v.unset(name)
	}
	return v.assign(name, value.String())
}

func (v *variables) assign(name, value string) error {
	old, known := v.set[name]
	switch {
	case old.readonly:
		return fmt.Errorf("%s: is read only", name)
	case len(value) > variableSize, !known && len(v.set) >= variableCount:
		return fmt.Errorf("%s: out of memory", name)
	}
	old.value = value
	v.set[name] = old
	return nil
}

func (v *variables) unset(name string) error {
	if v.set[name].readonly {
		return fmt.Errorf("%s: is read only", name)
	}
	delete(v.set, name)
	return nil
}

// mark changes the attributes of a variable, which is made if there is none.
func (v *variables) mark(name string, f func(*variable)) error {
	if _, ok := v.set[name]; !ok {
		if err := v.assign(name, ""); err != nil {
			return err
		}
	}
	got := v.set[name]
	f(&got)
	v.set[name] = got
	return nil
}

// exported are the variables that commands see, each NAME=VALUE, by name.
func (v *variables) exported() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(v.set)) {
		if got := v.set[name]; got.exported {
			out = append(out, name+"="+got.value)
		}
	}
	return out
}
