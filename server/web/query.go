package web

import (
	"net/url"
	"slices"
	"strings"
)

// secrets are the names of query parameters in which people put credentials. A URL is kept by proxies, logs and histories, so one that
// holds a credential is refused even where the parameter would mean nothing, and the caller learns of the leak.
var secrets = []string{
	"token", "accesstoken", "idtoken", "refreshtoken", "bearertoken", "bearer", "authorization", "auth", "jwt", "apikey", "password", "secret",
	"clientsecret", "credential", "credentials", "sluiceclusterauthorization",
}

// holdsSecret says whether a parameter's name is one of a credential, in any spelling: the field path a.b counts by its last part.
func holdsSecret(q url.Values) bool {
	for name := range q {
		name = lower(name[strings.LastIndexAny(name, ".[")+1:])
		name = strings.NewReplacer("_", "", "-", "", "]", "").Replace(name)
		if slices.Contains(secrets, name) {
			return true
		}
	}
	return false
}
