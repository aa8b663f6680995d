package deploy

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/source"
	"github.com/sluice-gateway/sluice/test/kube"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(ends{kube.Tests{M: m}})
}

// ends removes what the tests shared.
type ends struct{ kube.Tests }

// Run implements goleak.TestingM.
func (e ends) Run() int {
	code := e.Tests.Run()
	if err := os.RemoveAll(built.dir); err != nil {
		return max(code, 1)
	}
	return code
}

// root is the root of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := source.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// text is a file of the repository.
func text(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
