package main

import "testing"

func TestNamesAreFlattenedAndNothingElse(t *testing.T) {
	const made = `
    "/v1/{a.b}/{c}": {
      "get": {
        "description": "{a.b} and \"name\": \"a.b\" stay",
            "name": "a.b",
            "in": "path"
            "name": "c",
`
	const want = `
    "/v1/{b}/{c}": {
      "get": {
        "description": "{a.b} and \"name\": \"a.b\" stay",
            "name": "b",
            "x-field": "a.b",
            "in": "path"
            "name": "c",
`
	if got := flatten(made); got != want {
		t.Errorf("got %s", got)
	}
}
