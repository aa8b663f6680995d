package houserules

import (
	"fmt"
	"go/ast"
	"go/token"

	"github.com/sluice-gateway/sluice/internal/source"
)

// searches are the functions of package strings that look for one text in another.
var searches = map[string]bool{
	"Contains": true, "HasPrefix": true, "HasSuffix": true, "Index": true, "EqualFold": true, "Count": true,
}

// checkErrorText finds code that decides by the text of an error, which its author may reword at any time. Tests may: a
// message is there to be read, and a test can read it.
func checkErrorText(files []source.File) []string {
	var found []string
	for _, f := range files {
		if f.Test() {
			continue
		}
		ast.Inspect(f.Syntax, func(node ast.Node) bool {
			if node != nil && matchesErrorText(node) {
				found = append(found, fmt.Sprintf("%s:%d: decides by the text of an error: use errors.Is, errors.As or a status code", f.Path, f.Line(node)))
			}
			return true
		})
	}
	return found
}

func matchesErrorText(node ast.Node) bool {
	switch n := node.(type) {
	case *ast.CallExpr:
		return isSearch(n.Fun) && len(n.Args) > 0 && isErrorText(n.Args[0])
	case *ast.BinaryExpr:
		return (n.Op == token.EQL || n.Op == token.NEQ) && (isErrorText(n.X) || isErrorText(n.Y))
	case *ast.SwitchStmt:
		return n.Tag != nil && isErrorText(n.Tag)
	}
	return false
}

func isSearch(function ast.Expr) bool {
	selector, ok := function.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := selector.X.(*ast.Ident)
	return ok && pkg.Name == "strings" && searches[selector.Sel.Name]
}

// isErrorText says whether an expression is a call x.Error(): without arguments, that is the method of error.
func isErrorText(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok || len(call.Args) != 0 {
		return false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == "Error"
}
