// Package threats attacks a gateway as strangers, users and API servers could: over its ports, with bytes written by hand. A test is named
// after the row of the threat model that it answers, and shows that others are served meanwhile and that nothing is left behind.
package threats
