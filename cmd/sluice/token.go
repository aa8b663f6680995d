package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sluice-gateway/sluice/client"
)

// tokens gives the token for each attempt: the one of the command line or the environment, or what its file holds at the time.
func (a access) tokens() (client.TokenSource, error) {
	if a.token != "" {
		return client.StaticToken(a.token), oneToken(a.token)
	}
	if _, err := readToken(a.TokenFile); err != nil { // now, since later nobody would be told
		return nil, err
	}
	return func(context.Context) (string, error) { return readToken(a.TokenFile) }, nil
}

func readToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if err := oneToken(token); err != nil {
		return "", fmt.Errorf("token file %s: %w", file, err)
	}
	return token, nil
}

// oneToken refuses what cannot travel as a bearer token; its error does not quote it.
func oneToken(token string) error {
	if token == "" {
		return errors.New("the token is empty")
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the token holds spaces or other characters that no token has; give it alone, without `Bearer`")
	}
	return nil
}
