package auth_test

import (
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

func TestSPEC_BearerTakesExactlyOneToken(t *testing.T) {
	const (
		ok       = sluicev1.Reason_REASON_UNSPECIFIED
		missing  = sluicev1.Reason_REASON_MISSING_CREDENTIAL
		multiple = sluicev1.Reason_REASON_MULTIPLE_CREDENTIALS
		large    = sluicev1.Reason_REASON_TOKEN_TOO_LARGE
		invalid  = sluicev1.Reason_REASON_INVALID_TOKEN
	)
	atLimit := strings.Repeat("a", auth.MaxTokenBytes)
	for name, tc := range map[string]struct {
		values []string
		want   string
		reason sluicev1.Reason
	}{
		"a token":              {[]string{"Bearer a.b.c"}, "a.b.c", ok},
		"lower case":           {[]string{"bearer a.b.c"}, "a.b.c", ok},
		"upper case":           {[]string{"BEARER a.b.c"}, "a.b.c", ok},
		"several spaces":       {[]string{"Bearer   a.b.c"}, "a.b.c", ok},
		"all of token68":       {[]string{"Bearer azAZ09-._~+/=="}, "azAZ09-._~+/==", ok},
		"at the limit":         {[]string{"Bearer " + atLimit}, atLimit, ok},
		"no value":             {nil, "", missing},
		"no values":            {[]string{}, "", missing},
		"two values":           {[]string{"Bearer a", "Bearer b"}, "", multiple},
		"two equal values":     {[]string{"Bearer a", "Bearer a"}, "", multiple},
		"a value and nothing":  {[]string{"Bearer a", ""}, "", multiple},
		"over the limit":       {[]string{"Bearer " + atLimit + "a"}, "", large},
		"9 KiB":                {[]string{"Bearer " + strings.Repeat("a", 9<<10)}, "", large},
		"empty value":          {[]string{""}, "", invalid},
		"scheme only":          {[]string{"Bearer"}, "", invalid},
		"scheme and space":     {[]string{"Bearer "}, "", invalid},
		"token only":           {[]string{"a.b.c"}, "", invalid},
		"other scheme":         {[]string{"Basic YWxpY2U6cHc="}, "", invalid},
		"longer scheme":        {[]string{"BearerX a"}, "", invalid},
		"folding scheme":       {[]string{"Bea\u0155er a"}, "", invalid},
		"leading space":        {[]string{" Bearer a"}, "", invalid},
		"tab as separator":     {[]string{"Bearer\ta"}, "", invalid},
		"trailing space":       {[]string{"Bearer a "}, "", invalid},
		"inner space":          {[]string{"Bearer a b"}, "", invalid},
		"comma-joined":         {[]string{"Bearer a,Bearer b"}, "", invalid},
		"comma":                {[]string{"Bearer a,b"}, "", invalid},
		"NUL":                  {[]string{"Bearer a\x00b"}, "", invalid},
		"line end":             {[]string{"Bearer a\r\nb"}, "", invalid},
		"DEL":                  {[]string{"Bearer a\x7f"}, "", invalid},
		"not ASCII":            {[]string{"Bearer \u00e4"}, "", invalid},
		"not UTF-8":            {[]string{"Bearer \xff"}, "", invalid},
		"only padding":         {[]string{"Bearer =="}, "", invalid},
		"padding in the midst": {[]string{"Bearer a=b"}, "", invalid},
		"quoted":               {[]string{`Bearer "a"`}, "", invalid},
	} {
		t.Run(name, func(t *testing.T) {
			secret, err := auth.Bearer(tc.values)
			if tc.reason == ok {
				if err != nil || secret.Reveal() != tc.want {
					t.Errorf("got %q, %v", secret.Reveal(), err)
				}
				return
			}
			wantRefusal(t, secret, err, tc.reason)
			if !secret.IsZero() {
				t.Error("a refused value still came through")
			}
		})
	}
}
