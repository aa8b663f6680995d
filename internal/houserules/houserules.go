// Package houserules holds the tree to the rules that no linter knows: each package says once what it is, no file is
// longer than a person reads in one sitting, no name is one that could hold anything, and no error is told from another
// by its text. CONTRIBUTING.md says them to people.
package houserules

import (
	"slices"

	"github.com/sluice-gateway/sluice/internal/source"
)

// Check returns a sentence for each place where the files break a rule.
func Check(files []source.File) []string {
	return slices.Concat(checkDocs(files), checkLengths(files), checkNames(files), checkErrorText(files))
}
