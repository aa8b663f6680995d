package main

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"reflect"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/config"
)

// TestTheDefaultsOfTheLimitsAreTheServers holds what the reference says to what the server does: its defaults are read from its source, since
// it applies them after the configuration was read.
func TestTheDefaultsOfTheLimitsAreTheServers(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../../server/config.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "set" {
			return true
		}
		field := call.Args[0].(*ast.UnaryExpr).X.(*ast.SelectorExpr).Sel.Name
		value, err := types.Eval(token.NewFileSet(), nil, token.NoPos, types.ExprString(call.Args[1]))
		if err != nil || value.Value == nil {
			return true // it depends on the machine
		}
		want, _ := constant.Int64Val(value.Value)
		ours, ok := reflect.TypeFor[config.Limits]().FieldByName(field)
		if got, err := strconv.ParseInt(ours.Tag.Get("default"), 10, 64); !ok || err != nil || got != want {
			t.Errorf("limits.%s: the reference says %q, the server %d", field, ours.Tag.Get("default"), want)
		}
		compared++
		return true
	})
	if compared < 10 {
		t.Errorf("found the defaults of %d limits only", compared)
	}
}

func TestTheBoundsOfTheLimitsAreTheServers(t *testing.T) {
	span := regexp.MustCompile(`^(\w+) (?:or more|to (\w+))$`)
	v := func(set func(reflect.Value)) error {
		var l config.Limits
		set(reflect.ValueOf(&l).Elem())
		return limits(l).Validate()
	}
	for f := range reflect.TypeFor[config.Limits]().Fields() {
		bounds := span.FindStringSubmatch(f.Tag.Get("bounds"))
		if bounds == nil {
			t.Errorf("%s: bounds %q", f.Name, f.Tag.Get("bounds"))
			continue
		}
		if bounds[1] == "session_bytes" { // which is 8 MiB unless it is said
			bounds[1] = "8388608"
		}
		for i, step := range map[int]int64{1: -1, 2: 1} {
			if bounds[i] == "" {
				continue
			}
			edge, err := strconv.ParseInt(bounds[i], 10, 64)
			if f.Type == reflect.TypeFor[config.Duration]() {
				var d time.Duration
				d, err = time.ParseDuration(bounds[i])
				edge = int64(d)
			}
			if err != nil {
				t.Errorf("%s: bounds %q", f.Name, bounds[0])
			}
			if err := v(func(l reflect.Value) { l.FieldByName(f.Name).SetInt(edge) }); err != nil {
				t.Errorf("%s: %d was refused: %v", f.Name, edge, err)
			}
			if beyond := edge + step; beyond != 0 { // 0 is the default
				if err := v(func(l reflect.Value) { l.FieldByName(f.Name).SetInt(beyond) }); err == nil {
					t.Errorf("%s: %d was accepted, beyond %q", f.Name, beyond, bounds[0])
				}
			}
		}
	}
}
